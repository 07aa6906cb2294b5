"""How a change and the state of a record become the next state: one implementation for both ends. Pure; no SQL."""

from backhaul.merge.custom import Functions, MergeFailed
from backhaul.merge.record import Change, Stamp, State, merge

__all__ = ["Change", "Functions", "MergeFailed", "Stamp", "State", "merge"]
