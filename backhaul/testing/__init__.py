"""A kit for testing work: a clock to move, constraints to set, due work run in the caller's thread, no broker.

See docs/testing.md. It is for tests: nothing else of Backhaul imports it.
"""

from backhaul.testing.calling import Call, call
from backhaul.testing.clock import MovedClock
from backhaul.testing.harness import Harness
from backhaul.testing.running import Ran

__all__ = ["Call", "Harness", "MovedClock", "Ran", "call"]
