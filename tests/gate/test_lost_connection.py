"""The gate, where the connection to RabbitMQ is lost in the middle of what it says there."""

from __future__ import annotations

import pytest

from tests.gate.line import Line
from tests.gate.matrix import staged_open
from tests.gate.stage import SECONDS
from tests.waiting import eventually

BASIC_CANCEL = b"\x00\x3c\x00\x1e"  # class 60, method 30, as AMQP 0-9-1 writes them


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_connection_that_is_lost_while_a_queue_is_let_go_of_loses_no_queue(rabbit: Line, pool: str) -> None:
    """With Celery's event loop, and without: there nobody hears of it, unless we say so."""
    with staged_open(pool, "rabbitmq", rabbit) as stage:
        stage.open_all()
        queue = stage.queue("unmetered")
        rabbit.cut_at(BASIC_CANCEL)
        stage.crew.set(unmetered=False)
        eventually(lambda: rabbit.is_cut, SECONDS, "it was about to be let go of")
        stage.crew.set(unmetered=True)
        eventually(lambda: stage.crew.is_open(queue), SECONDS, "it is open again, whatever the broker knows")
        rabbit.mend()
        eventually(lambda: queue in stage.gate()["consumed"], 30, "it is taken up with the next connection")
