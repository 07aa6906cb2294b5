"""The settings of one replica: `backhaul.toml` in its folder, and the environment, which goes before the file.

Every setting has a variable: BACKHAUL_, then the path with double underscores between its parts, so that
`[sync] pull_every` is BACKHAUL_SYNC__PULL_EVERY and `[queues.media] tags` is BACKHAUL_QUEUES__MEDIA__TAGS (lists as
JSON). How they are read, and what is said when something in them is wrong: loading.py.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import make_url

from backhaul.database import sqlite_file
from backhaul.errors import Misused
from backhaul.media.turns import Order
from backhaul.remotes.traffic import NETWORKS, Budget, Limits
from backhaul.replica.strategies import Rules
from backhaul.work.conditions import is_label, known_condition
from backhaul.work.quiet import checked_hours
from backhaul.work.request import is_word
from config.section import Section
from config.sync_sections import Download, Retries, Sync, TableSection, WorkSection
from config.units import Duration, Size


def _known(name: str) -> str:
    try:
        return known_condition(name)
    except Misused as error:
        raise ValueError(f"{error}; {error.hint}") from error


def _kind(name: str) -> str:
    if not is_word(name):
        raise ValueError(f"{name!r} is no name of a work function or of a task")
    return name


def _label(name: str) -> str:
    if not is_label(name):
        raise ValueError(f"{name!r} is no label: one has a colon, as in region:eu")
    return name


def _hours(written: str) -> str:
    try:
        return checked_hours(written)
    except Misused as error:
        raise ValueError(f"{error}; {error.hint}") from error


Condition = Annotated[str, AfterValidator(_known)]
Kind = Annotated[str, AfterValidator(_kind)]
Label = Annotated[str, AfterValidator(_label)]
Hours = Annotated[str, AfterValidator(_hours)]
Tag = Annotated[str, AfterValidator(lambda name: name if is_label(name) else _known(name))]


LONGEST_NODE = 200


class Replica(Section):
    """database: SQLAlchemy URL; a relative SQLite file is looked for beside backhaul.toml. remote: the server's URL."""

    database: str = ""
    remote: str = ""
    allow_plain_http: bool = False


class Broker(Section):
    """url: any Redis or RabbitMQ. None: a redis-server of our own, in the replica's folder."""

    url: str | None = None


class QueueSection(Section):
    """tags: the conditions under which it is open. labels: what a machine that serves it must be. expedited: it is for
    the first try of expedited work alone. kinds: the works, by function or task, that run nowhere but here; None: as by
    default (`backhaul.upload` on `media`)."""

    tags: tuple[Tag, ...] = ()
    kinds: tuple[Kind, ...] | None = None
    labels: tuple[Label, ...] = ()
    concurrency: int | None = Field(default=None, ge=1, le=1024)
    expedited: bool = False


class LimitsSection(Section):
    """Bytes to send and receive in a day and in a month of this node's local time."""

    day: Size | None = None
    month: Size | None = None


class BudgetSection(LimitsSection):
    """Over all links that cost something. metered, roaming: over those of one kind, beside it."""

    metered: LimitsSection = LimitsSection()
    roaming: LimitsSection = LimitsSection()

    @property
    def limits(self) -> Budget:
        networks = {kind: getattr(self, kind) for kind in NETWORKS}
        limits = {kind: Limits(day=said.day, month=said.month) for kind, said in networks.items()}
        return Budget(day=self.day, month=self.month, networks=limits)


class Quiet(Section):
    """hours: when `not_quiet` does not hold, by this machine's local time."""

    hours: tuple[Hours, ...] = ()


PROBED: tuple[Condition, ...] = (
    "connected",
    "unmetered",
    "metered",
    "not_roaming",
    "charging",
    "battery_not_low",
    "device_idle",
    "storage_not_low",
)


class Probes(Section):
    """on: the conditions that the machine is asked for; what `conditions` or the environment says is asked of nobody.

    battery_low, battery_ok: percent; low from the one down, and no more from the other up. storage_floor: bytes that
    must be free. idle_load, busy_load: runnable processes for each core; idle up to the one, busy from the other.
    steady: how long a condition that flips must hold. server_every: how often the server is tried. Milliseconds.
    """

    on: tuple[Condition, ...] = PROBED
    battery_low: float = Field(default=15, ge=0, le=100)
    battery_ok: float = Field(default=20, ge=0, le=100)
    storage_floor: Size = 500 * 10**6
    idle_load: float = Field(default=0.5, ge=0)
    busy_load: float = Field(default=1.5, ge=0)
    steady: Duration = 2_000
    server_every: Duration = 15_000


class Media(Section):
    """requires: the conditions under which files travel. chunk: bytes of one append. keep: whether a file that is put
    is kept as it is then, and may be edited or deleted at once; else it is sent from where it is. download_requires:
    the conditions under which files come; None: the same as `requires`. cache: bytes of all kept files; beyond it, the
    least recently used go, if the server has them. floor: bytes of the disk that stay free, if that is enough. order:
    which uploads go first, among those of one priority. max_bytes: of a file, by the kind of link that costs something;
    larger ones wait for another link. What is said of metered links counts for roaming ones, too, unless those have
    their own. download: whether the files that others have put are fetched when they are opened, or when a record that
    names one arrives. transform_requires: the conditions under which something is made of files before
    they are sent."""

    requires: tuple[Tag, ...] = ("connected", "unmetered", "charging", "storage_not_low")
    chunk: Size = 4 * 2**20
    order: Order = "small"
    download: Download = "lazy"
    max_bytes: dict[Literal["metered", "roaming"], Size] = Field(default_factory=dict)
    keep: bool = True
    download_requires: tuple[Tag, ...] | None = None
    cache: Size = 2 * 10**9
    floor: Size = 5 * 10**8
    transform_requires: tuple[Tag, ...] = ("charging",)


class Server(Section):
    """For `backhaul serve`. data: the folder of its database and media. database: another one, by URL. merge_modules:
    what may be imported for the functions of columns that are merged as `custom`. horizon: how long deletions are
    remembered for replicas that do not pull. media: a bucket for files instead of the folder,
    `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&redirect=SECONDS`. media_quota: bytes of files for each scope.
    media_types: the types of files that are taken, such as `image/*`; none: all."""

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    data: str = "server"
    database: str | None = None
    merge_modules: tuple[str, ...] = ()
    horizon: Duration = 90 * 86_400_000
    media: str | None = None
    media_quota: Size | None = None
    media_types: tuple[str, ...] = ()


DEFAULT_QUEUES = {
    "sync": QueueSection(tags=("connected",)),
    "media": QueueSection(tags=("connected", "unmetered", "charging", "storage_not_low")),
    "maintenance": QueueSection(tags=("device_idle",)),
    "background": QueueSection(tags=("connected", "unmetered", "battery_not_low")),
}


class Settings(BaseSettings):
    """All there is to set. Unknown names are refused, or a slip of the pen would silently mean the default."""

    model_config = SettingsConfigDict(
        env_prefix="BACKHAUL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    home: Path
    node: str = Field(default_factory=socket.gethostname)
    labels: tuple[Label, ...] = ()
    replica: Replica = Replica()
    broker: Broker = Broker()
    queues: dict[str, QueueSection] = Field(default_factory=DEFAULT_QUEUES.copy)
    conditions: dict[Condition, bool] = Field(default_factory=dict)
    unknown: dict[Condition, bool] = Field(default_factory=dict)
    quiet: Quiet = Quiet()
    budget: BudgetSection = BudgetSection()
    probes: Probes = Probes()
    sync: Sync = Sync()
    retry: Retries = Retries()
    media: Media = Media()
    tables: dict[str, TableSection] = Field(default_factory=dict)
    work: WorkSection = WorkSection()
    server: Server = Server()

    @field_validator("node")
    @classmethod
    def _named(cls, said: str) -> str:
        name = said.strip() or socket.gethostname()
        if not name.isprintable() or len(name) > LONGEST_NODE:
            raise ValueError(f"it should be a name of at most {LONGEST_NODE} characters, in one line")
        return name

    @field_validator("queues")
    @classmethod
    def _beside_the_default(cls, queues: dict[str, QueueSection]) -> dict[str, QueueSection]:
        return DEFAULT_QUEUES | queues

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's own signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The folder as the caller said it, then the environment, then the file."""
        assert isinstance(init_settings, InitSettingsSource)
        home = {"home": init_settings.init_kwargs["home"]}
        return InitSettingsSource(settings_cls, home), env_settings, init_settings

    @property
    def rules(self) -> dict[str, Rules]:
        """How the concurrent edits of each table that is spoken of are merged."""
        return {name: section.rules for name, section in self.tables.items()}

    @property
    def state(self) -> Path:
        """The folder of what is ours, `.backhaul`; it is made if it is not there."""
        return state_folder(self.home)

    @property
    def database_url(self) -> str:
        """The replica's database, with a SQLite file's path made absolute."""
        return _absolute(self.replica.database, self.home)


@lru_cache(maxsize=64)  # each run asks for it, and the file system is asked for each part of the path
def _absolute(database: str, home: Path) -> str:
    file = sqlite_file(database)
    if file is None:
        return database
    return make_url(database).set(database=str((home / file).resolve())).render_as_string()


def state_folder(home: Path) -> Path:
    folder = home / ".backhaul"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)  # whoever made it: the token and the broker's socket lie there
    return folder
