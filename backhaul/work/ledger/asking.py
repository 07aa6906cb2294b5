"""What there is: one piece of work, or those of some ids, names, tags or states. Nothing here writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    any_,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from backhaul.errors import Misused
from backhaul.schema import work as table
from backhaul.schema import work_parent, work_tag
from backhaul.statements import on_postgresql
from backhaul.work.data import decode_data
from backhaul.work.request import CELERY_TASK
from backhaul.work.row import FINISHED, UNFINISHED, State, Work, work_from_row

FEW = 5_000  # that have a tag: they are looked up by it, and not walked to
PLACE = re.compile(r"(\d{0,18})\.(\d{1,18})\.(.+)")
LABEL = func.coalesce(table.c.function, table.c.task)
# The work of sync itself; a plain Celery task of the host travels under a name of ours, and is the host's.
OURS = and_(table.c.task >= "backhaul.", table.c.task < "backhaul/", table.c.task != CELERY_TASK)


def get(connection: Connection, work_id: str) -> Work | None:
    return one(connection, select(table).where(table.c.id == work_id))


def by_name(connection: Connection, name: str) -> Work | None:
    """The newest of this name."""
    newest = table.c.created_at.desc(), table.c.id.desc()
    return one(connection, select(table).where(table.c.name == name).order_by(*newest).limit(1))


def query(
    connection: Connection,
    *,
    ids: Collection[str] | None = None,
    names: Collection[str] | None = None,
    tags: Collection[str] | None = None,
    states: Collection[State] | None = None,
    task: str | None = None,
    ours: bool = True,
    limit: int = 1_000,
) -> list[Work]:
    """Any of each list, and all of the lists; in the order it was made. tags: the name of its function is one of them.
    ours: with sync's own."""
    wanted = _wanted(connection, ids, names, states, ours)
    if tags is not None:
        wanted.append(tagged(connection, tags))
    if task is not None:
        wanted.append(table.c.task == task)
    return every(connection, select(table).where(*wanted).order_by(table.c.created_at, table.c.id).limit(limit))


def latest(
    connection: Connection,
    *,
    ids: Collection[str] | None = None,
    names: Collection[str] | None = None,
    tags: Collection[str] | None = None,
    states: Collection[State] | None = None,
    ours: bool = True,
    after: str | None = None,
    limit: int = 1_000,
) -> list[Work]:
    """As `query`; but what is unfinished first, and of it the newest, then what has finished last. after: the `place`
    of the last one of the page before, as it was read then: whatever has ended or begun since, none that was there is
    left out. Raises Misused for what is no place."""
    wanted = _wanted(connection, ids, names, None, ours)
    ended, made, work_id = _placed(after) if after is not None else (None, None, None)
    found: list[Work] = []
    of_states = _of_states(connection, states, UNFINISHED)
    if of_states is not None and (after is None or ended is None):
        half = table.c.finished_at.is_(None)
        unfinished = select(table).where(half, *of_states, *wanted, *_tagged(connection, tags, half))
        if after is not None:
            unfinished = unfinished.where(tuple_(table.c.created_at, table.c.id) < tuple_(made, work_id))
        found = every(connection, unfinished.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit))
    of_states = _of_states(connection, states, FINISHED)
    if of_states is not None and len(found) < limit:
        half = table.c.finished_at.is_not(None)
        finished = select(table).where(half, *of_states, *wanted, *_tagged(connection, tags, half))
        if ended is not None:
            finished = finished.where(tuple_(table.c.finished_at, table.c.id) < tuple_(ended, work_id))
        order = table.c.finished_at.desc(), table.c.id.desc()
        found += every(connection, finished.order_by(*order).limit(limit - len(found)))
    return found


def counts(connection: Connection) -> dict[str, int]:
    """How much work there is in each state that has any."""
    rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
    return {state: number for state, number in rows}  # noqa: C416 - a row is a tuple of its own type


def inputs_of(connection: Connection, work: Work) -> list[dict[str, Any]]:
    """The outputs of what it waited for, in the order in which that was named."""
    if not work.parents:
        return []
    outputs = (
        select(table.c.output)
        .join(work_parent, work_parent.c.parent_id == table.c.id)
        .where(work_parent.c.work_id == work.id)
        .order_by(work_parent.c.position)
    )
    return [decode_data(text) if text else {} for text in connection.scalars(outputs)]


def parents_of(connection: Connection, work_id: str) -> list[Work]:
    """What it waits for, or has waited for, in the order in which that was named."""
    edges = select(table).join(work_parent, work_parent.c.parent_id == table.c.id)
    return every(connection, edges.where(work_parent.c.work_id == work_id).order_by(work_parent.c.position))


def children_of(connection: Connection, work_id: str) -> list[Work]:
    """What waits for it, or has waited for it."""
    edges = select(table).join(work_parent, work_parent.c.work_id == table.c.id)
    return every(connection, edges.where(work_parent.c.parent_id == work_id).order_by(table.c.id))


def _wanted(
    connection: Connection,
    ids: Collection[str] | None,
    names: Collection[str] | None,
    states: Collection[State] | None,
    ours: bool,
) -> list[ColumnElement[bool]]:
    lists = (table.c.id, ids), (table.c.name, names), (table.c.state, states)
    wanted = [among(connection, column, some) for column, some in lists if some is not None]
    return wanted if ours else [*wanted, ~OURS]


def _of_states(
    connection: Connection, states: Collection[State] | None, half: Sequence[State]
) -> list[ColumnElement[bool]] | None:
    """For a WHERE that is of this half already; None: it has none of them.

    Of the first state of each half there are many, and the page is found by the half's own index, which has its order;
    of the others there are few, by the index of states. (SQLite keeps no account of that, and has to be told.)"""
    some = list(half) if states is None else [state for state in half if state in states]
    if not some:
        return None
    if len(some) == len(half):
        return []
    by_order = half[0] in some and not on_postgresql(connection)
    return [among(connection, literal_column("+backhaul_work.state") if by_order else table.c.state, some)]


def _placed(said: str) -> tuple[int | None, int, str]:
    """When it ended, was made, and its id: a `place` taken apart."""
    found = PLACE.fullmatch(said)
    if found is None:
        raise Misused(f"{said!r} is no place in a list of work", hint="the `place` of the last work of the page before")
    ended, made, work_id = found.groups()
    return int(ended) if ended else None, int(made), work_id


def _tagged(
    connection: Connection, tags: Collection[str] | None, half: ColumnElement[bool]
) -> list[ColumnElement[bool]]:
    return [] if tags is None else [tagged(connection, tags, half)]


def tagged(connection: Connection, tags: Collection[str], *half: ColumnElement[bool]) -> ColumnElement[bool]:
    """Has one of the tags, of which the name of its function is one, as in WorkManager. half: what is finished, or what
    is not, where that is asked for beside.

    A few are looked up by their tags. Where there are many, whoever walks the half in its order soon finds a page of
    them, and asks each row that he comes by."""
    by_tag = select(work_tag.c.work_id).where(among(connection, work_tag.c.tag, tags))
    by_task = select(table.c.id).where(among(connection, table.c.task, tags), table.c.function.is_(None), *half)
    plain = table.c.task == CELERY_TASK, among(connection, table.c.function, tags)
    found = by_tag.union_all(by_task, select(table.c.id).where(*plain, *half))
    if connection.scalar(found.limit(1).offset(FEW)) is None:
        return table.c.id.in_(found)
    own = exists(select(1).where(work_tag.c.work_id == table.c.id, among(connection, work_tag.c.tag, tags)))
    return or_(own, among(connection, LABEL, tags))


def among(connection: Connection, column: Any, wanted: Collection[str]) -> ColumnElement[bool]:
    """IN, for a list as long as it likes: the number of places in a statement is limited."""
    if on_postgresql(connection):
        listed: ColumnElement[bool] = column == any_(literal(list(wanted), ARRAY(Text)))
        return listed
    each = func.json_each(msgspec.json.encode(list(wanted)).decode()).table_valued("value")
    within: ColumnElement[bool] = column.in_(select(each.c.value))
    return within


def existing(connection: Connection, work_id: str) -> Work:
    return work_from_row(connection.execute(select(table).where(table.c.id == work_id)).mappings().one())


def one(connection: Connection, statement: Any, values: Mapping[str, Any] | None = None) -> Work | None:
    row = connection.execute(statement, values).mappings().one_or_none()
    return None if row is None else work_from_row(row)


def every(connection: Connection, statement: Any) -> list[Work]:
    return [work_from_row(row) for row in connection.execute(statement).mappings()]
