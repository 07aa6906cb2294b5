"""The settings of one replica: `backhaul.toml` in its folder, and the environment, which goes before the file.

Every setting has a variable: BACKHAUL_, then the path with double underscores between its parts, so that
`[sync] pull_every` is BACKHAUL_SYNC__PULL_EVERY and `[queues.media] tags` is BACKHAUL_QUEUES__MEDIA__TAGS (lists as
JSON). The broker's URL may also be said as BACKHAUL_BROKER_URL, and the folder as BACKHAUL_HOME.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError
from sqlalchemy import make_url

from backhaul.database import sqlite_file
from backhaul.errors import ConfigurationInvalid, Misused, NotInitialised
from backhaul.replica.strategies import CHOICE, EVERY, Rules, Triggers
from backhaul.wire import STRATEGIES, Deletes, KeyKind, strategy_name
from backhaul.work.conditions import is_label, known_condition
from config.toml_lines import line_of
from config.units import Duration, Size

FILE = "backhaul.toml"
INIT = "backhaul init --database URL --remote URL --code CODE"


def _known(name: str) -> str:
    try:
        return known_condition(name)
    except Misused as error:
        raise ValueError(f"{error}; {error.hint}") from error


def _strategy(said: str) -> str:
    if strategy_name(said) not in STRATEGIES:
        raise ValueError(f"there is no strategy {said!r}; there are {CHOICE}")
    return said


Condition = Annotated[str, AfterValidator(_known)]
Strategy = Annotated[str, AfterValidator(_strategy)]
Tag = Annotated[str, AfterValidator(lambda name: name if is_label(name) else _known(name))]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replica(Section):
    """database: SQLAlchemy URL; a relative SQLite file is looked for beside backhaul.toml. remote: the server's URL."""

    database: str = ""
    remote: str = ""
    allow_plain_http: bool = False


class Broker(Section):
    """url: any Redis or RabbitMQ. None: a redis-server of our own, in the replica's folder."""

    url: str | None = None


class QueueSection(Section):
    """tags: the conditions under which it is open. labels: what a machine that serves it must be."""

    tags: tuple[Tag, ...] = ()
    labels: tuple[str, ...] = ()
    concurrency: int | None = Field(default=None, ge=1, le=1024)


class Sync(Section):
    """Milliseconds. Changes of the app are pushed at once; `push_every` is only how long a lost hint can last."""

    push_every: Duration = 15 * 60_000
    push_flex: Duration = 0
    pull_every: Duration = 30_000
    pull_flex: Duration = 0
    reconcile_every: Duration = 12 * 3_600_000
    reconcile_flex: Duration = 3_600_000
    on_reset: Literal["recover", "discard"] = "recover"


class Retry(Section):
    """initial, most: milliseconds. jitter: 0 (none) to 1."""

    policy: Literal["exponential", "linear"] = "exponential"
    initial: Duration = 2_000
    most: Duration = 5 * 60_000
    jitter: float = Field(default=0.5, ge=0, le=1)


class RetryOfReconcile(Retry):
    initial: Duration = 30_000
    most: Duration = 5 * 3_600_000


class RetryOfUpload(Retry):
    initial: Duration = 10_000
    most: Duration = 3_600_000


class Retries(Section):
    push: Retry = Retry()
    pull: Retry = Retry()
    reconcile: RetryOfReconcile = RetryOfReconcile()
    upload: RetryOfUpload = RetryOfUpload()


class Media(Section):
    """requires: the conditions under which files travel. chunk: bytes of one append."""

    requires: tuple[Tag, ...] = ("connected", "unmetered", "charging", "storage_not_low")
    chunk: Size = 4 * 2**20


class TableSection(Section):
    """How one table's concurrent edits are merged. merge: one strategy for all columns, or column -> strategy, where
    `*` stands for those that are not named. aggregate: the table that this one's records are parts of. keys: how its
    keys come about, where `init` would choose another way. renamed: old column -> new, for columns that had another
    name when they were last synced. triggers: what the app's own do where records of others arrive."""

    merge: dict[str, Strategy] = Field(default_factory=dict)
    deletes: Deletes | None = None
    aggregate: str = ""
    renamed: dict[str, str] = Field(default_factory=dict)
    keys: KeyKind | None = None
    triggers: Triggers | None = None

    @field_validator("merge", mode="before")
    @classmethod
    def _one_for_all(cls, said: Any) -> Any:
        return {EVERY: said} if isinstance(said, str) else said

    @property
    def rules(self) -> Rules:
        return Rules(
            merge=self.merge,
            deletes=self.deletes,
            aggregate=self.aggregate,
            keys=self.keys,
            renamed=self.renamed,
            triggers=self.triggers,
        )


class WorkSection(Section):
    """modules: what is imported for the functions that the host gives to `backhaul.work`."""

    modules: tuple[str, ...] = ()


class Server(Section):
    """For `backhaul serve`. data: the folder of its database and media. database: another one, by URL. merge_modules:
    what may be imported for the functions of columns that are merged as `custom`. horizon: how long deletions are
    remembered for replicas that do not pull."""

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    data: str = "server"
    database: str | None = None
    merge_modules: tuple[str, ...] = ()
    horizon: Duration = 90 * 86_400_000


DEFAULT_QUEUES = {
    "sync": QueueSection(tags=("connected",)),
    "media": QueueSection(tags=("connected", "unmetered", "charging", "storage_not_low")),
    "maintenance": QueueSection(tags=("device_idle",)),
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
    labels: tuple[str, ...] = ()
    replica: Replica = Replica()
    broker: Broker = Broker()
    queues: dict[str, QueueSection] = Field(default_factory=DEFAULT_QUEUES.copy)
    conditions: dict[Condition, bool] = Field(default_factory=dict)
    sync: Sync = Sync()
    retry: Retries = Retries()
    media: Media = Media()
    tables: dict[str, TableSection] = Field(default_factory=dict)
    work: WorkSection = WorkSection()
    server: Server = Server()

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
    def state(self) -> Path:
        """The folder of what is ours, `.backhaul`; it is made if it is not there."""
        return state_folder(self.home)

    @property
    def database_url(self) -> str:
        """The replica's database, with a SQLite file's path made absolute."""
        file = sqlite_file(self.replica.database)
        if file is None:
            return self.replica.database
        return make_url(self.replica.database).set(database=str((self.home / file).resolve())).render_as_string()


def load(home: Path | None = None, *, initialised: bool = True) -> Settings:
    """The settings of the replica in this folder (else BACKHAUL_HOME, else the current folder).

    initialised: False allows a folder in which there is no replica (yet).

    Raises NotInitialised when the folder holds no replica, and ConfigurationInvalid, with the file, the line and the
    field, when something in it cannot be used.
    """
    home = (home or Path(os.environ.get("BACKHAUL_HOME") or ".")).resolve()
    text = _text(home / FILE)
    settings = _settings(home, text)
    if initialised:
        _hold_a_replica(settings, text)
    return settings


def state_folder(home: Path) -> Path:
    folder = home / ".backhaul"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)  # whoever made it: the token and the broker's socket lie there
    return folder


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{file}: it cannot be read: {error}") from error


def _settings(home: Path, text: str) -> Settings:
    try:
        return Settings(home=home, **_with_broker_variable(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationInvalid(
            f"{home / FILE}: {error}", hint="see https://toml.io for how TOML is written"
        ) from error
    except ValidationError as error:
        raise ConfigurationInvalid(_said(home, text, error)) from error
    except SettingsError as error:
        raise ConfigurationInvalid(f"environment: {error}", hint='lists are JSON here: ["connected"]') from error


def _with_broker_variable(written: dict[str, Any]) -> dict[str, Any]:
    url = os.environ.get("BACKHAUL_BROKER_URL")
    return written | {"broker": {"url": url}} if url else written


def _hold_a_replica(settings: Settings, text: str) -> None:
    for field in ("database", "remote"):
        if getattr(settings.replica, field):
            continue
        if not text and not settings.replica.database:
            raise NotInitialised(f"{settings.home} holds no replica", hint=INIT)
        line = line_of(text, ("replica",))
        raise ConfigurationInvalid(f"{_place(settings.home, line)}: replica.{field}: it is missing", hint=INIT)


def _said(home: Path, text: str, error: ValidationError) -> str:
    """One line for each problem: where it stands, which field, and what is wrong."""
    return "\n".join(_problem(home, text, problem["loc"], _sentence(problem)) for problem in error.errors())


def _problem(home: Path, text: str, path: tuple[str | int, ...], sentence: str) -> str:
    path = tuple(part for part in path if part != "[key]")
    field = ".".join(str(part) for part in path)
    variable = "BACKHAUL_" + "__".join(str(part).upper() for part in path if isinstance(part, str))
    if variable in os.environ:
        return f"environment, {variable}: {field}: {sentence}"
    return f"{_place(home, line_of(text, path))}: {field}: {sentence}"


def place_of(home: Path, path: tuple[str, ...]) -> str:
    """Where backhaul.toml says this: the file, and the line if it is written down there."""
    return _place(home, line_of(_text(home / FILE), path))


def _place(home: Path, line: int | None) -> str:
    return f"{home / FILE}, line {line}" if line else str(home / FILE)


def _sentence(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such setting"
    if problem["type"] == "tuple_type":
        return "it should be a list"
    return str(problem["msg"]).removeprefix("Value error, ")
