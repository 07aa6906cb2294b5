"""Work: what is to be done in the background, under which constraints, and what became of it."""

from backhaul.backoff import Backoff
from backhaul.work.adjusting import WorkAdjusted
from backhaul.work.chain import Chain, chain, combine
from backhaul.work.conditions import Condition
from backhaul.work.constraints import Constraints, FileTrigger, TableTrigger
from backhaul.work.context import Context
from backhaul.work.functions import worker
from backhaul.work.hooks import on_exception
from backhaul.work.ledger import Work
from backhaul.work.one_time import OneTimeWork
from backhaul.work.periodic import PeriodicWork
from backhaul.work.placing import Verdict
from backhaul.work.request import WorkRequest
from backhaul.work.result import Result
from backhaul.work.roster import QueueState, Worker

__all__ = [
    "Backoff",
    "Chain",
    "Condition",
    "Constraints",
    "Context",
    "FileTrigger",
    "OneTimeWork",
    "PeriodicWork",
    "QueueState",
    "Result",
    "TableTrigger",
    "Verdict",
    "Work",
    "WorkAdjusted",
    "WorkRequest",
    "Worker",
    "chain",
    "combine",
    "on_exception",
    "worker",
]
