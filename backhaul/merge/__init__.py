"""How a change and the state of a record become the next state: one implementation for both ends. Pure; no SQL."""

from backhaul.merge.custom import Functions, MergeFailed
from backhaul.merge.lineage import ALONE, Lineage
from backhaul.merge.objections import Objection, contested, objection, overgrown, unusable
from backhaul.merge.record import State, merge
from backhaul.merge.register import Change, Register, Stamp
from backhaul.merge.strategies import LAST_WRITE_WINS, Strategies, strategies_of

__all__ = [
    "ALONE",
    "LAST_WRITE_WINS",
    "Change",
    "Functions",
    "Lineage",
    "MergeFailed",
    "Objection",
    "Register",
    "Stamp",
    "State",
    "Strategies",
    "contested",
    "merge",
    "objection",
    "overgrown",
    "strategies_of",
    "unusable",
]
