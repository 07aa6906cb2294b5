"""What a worker's main process holds: the settings, the database, and the embedded broker, if that is the broker."""

from __future__ import annotations

from celery import Celery
from sqlalchemy import inspect

from backhaul.clock import SystemClock
from backhaul.database import sqlite_file
from backhaul.errors import NotInitialised
from backhaul.schema import work
from backhaul.telemetry import emit
from config.broker import EmbeddedBroker
from config.loading import INIT
from config.schedule import ensure_standing
from config.settings import Settings
from workers.database import WorkerDatabase

LOOK_SECONDS = 0.2  # for an answer of the broker


class WorkerReplica:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = WorkerDatabase(settings.database_url)
        self._broker = None if settings.broker.url else EmbeddedBroker(settings.state)

    def begin(self) -> None:
        """Before a worker or a beat starts. Raises NotInitialised, BrokerUnreachable, DatabaseBusy."""
        self._check_database()
        self.ensure_broker()
        with self.database.using() as database, database.writing() as connection:
            ensure_standing(connection, self.settings, SystemClock().now())

    def _check_database(self) -> None:
        file = sqlite_file(self.settings.database_url)
        if file is not None and not file.exists():  # opening it would make it
            raise NotInitialised(f"there is no database {file}", hint=INIT)
        with self.database.using() as database, database.reading() as connection:
            if not inspect(connection).has_table(work.name):
                raise NotInitialised("this database holds no replica", hint=INIT)

    def broker_answers(self) -> bool:
        """Whether the embedded broker does, and soon; one that others run is theirs to look after."""
        return self._broker is None or self._broker.answers(within=LOOK_SECONDS)

    def ensure_broker(self) -> None:
        if self._broker is not None and not self._broker.answers():
            emit("broker.started", address=self._broker.ensure())

    def end(self) -> None:
        """The broker ends with the process that started it; another one that still needs it starts its own."""
        self.database.close()
        if self._broker is not None:
            self._broker.stop()


def replica_of(app: Celery) -> WorkerReplica:
    replica: WorkerReplica = app.replica
    return replica
