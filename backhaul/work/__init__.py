"""Work: what is to be done in the background, under which constraints, and what became of it."""

from backhaul.backoff import Backoff
from backhaul.work.conditions import Condition
from backhaul.work.constraints import Verdict
from backhaul.work.ledger import Work
from backhaul.work.request import WorkRequest
from backhaul.work.roster import QueueState, Worker

__all__ = ["Backoff", "Condition", "QueueState", "Verdict", "Work", "WorkRequest", "Worker"]
