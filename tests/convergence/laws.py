"""What must be true of a simulated world in the end, exactly: of what was captured, what was taken, what is there."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from backhaul.merge.plain import SERVER
from backhaul.replica.reconcile import compare
from tests.convergence.app import FIELDS, MERGED, MORE_FIELDS
from tests.convergence.branch import Branch, Rows
from tests.convergence.journal import Accepted, Said, count
from tests.convergence.world import World

PARKED_FOR = {"key-taken", "depends-on-refused", "depends-on-parked", "malformed", "batch-too-large", "immutable"}
PARKED_AFTER = {
    "late": {"record-gone", "outcome-forgotten"},
    "backups": {"record-gone", "value-invalid"},  # an edit of a text that builds on one that was given up before
    "restored": {"record-gone", "value-invalid"},
}
Histories = dict[tuple[str, str], list[Accepted]]  # by record: what was taken, in its order


def check_what_waits(world: World) -> None:
    """Nothing but what waits for a person, and for a reason that there is."""
    allowed = PARKED_FOR.union(*(PARKED_AFTER.get(feature, set()) for feature in world.features))
    for branch in world.branches:
        assert set(branch.replica.states()) <= {"parked", "conflict"}, branch.replica.outbox()
        reasons = {row["reason"] for row in branch.replica.parked()}
        assert reasons <= allowed, reasons - allowed
        assert bool(branch.open_conflicts()) == ("conflict" in branch.replica.states())


def check_nothing_is_lost_or_doubled(world: World) -> None:
    """Every change that was captured was taken by the server once, or waits for a person, or was given up by one. Of
    those of which the server has forgotten what became of them, nobody can tell."""
    for branch in world.branches:
        taken = world.journal.of_branch(branch.network.number)
        waits = {row: branch.waiting()[row] for row in branch.held()}
        due = branch.watched() - _said(waits)
        lost = due - taken - world.journal.lost_of_branch(branch.network.number)
        unsure = branch.unsure(purged=world.journal.purged, forgotten=world.journal.forgotten)
        doubled = taken - due - branch.unsaved - unsure
        assert (lost, doubled) == ({}, {}), f"replica {branch.network.number}: lost {lost}; doubled {doubled}"


def check_all_are_equal_but_for_what_waits(world: World) -> None:
    reference = world.branches[0]
    for branch in world.branches[1:]:
        held = _held(reference) | _held(branch)
        _assert_equal(branch.rows(), reference.rows(), held)


def check_all_are_equal_to_the_server(world: World) -> None:
    for branch in world.branches:
        assert branch.replica.outbox() == []
        comparison = compare(branch.replica.database, branch.network, context=branch.replica.context)
        different = [one.table for one in comparison.tables if one.here != one.there]
        lacking = {"picture", "size"} - {name for row in branch.rows()["tag"].values() for name in row}
        assert different in ([], ["tag"] if lacking else []), comparison  # of columns that are not here, too
        assert comparison.moving is None
        _assert_equal(branch.rows(), world.branches[0].rows(), set())


def check_every_value_was_written(world: World) -> None:
    """What stands in a field is what some change wrote there; and where no delete was taken, the last one that did.
    What was written to a record that was deleted by then is of no effect."""
    written, last = defaultdict(set), dict[tuple[str, str, str], tuple[str, str, str]]()
    deleted = dict[tuple[str, str], str]()  # the last delete of each record
    born = dict[tuple[str, str], str]()  # the last time that it was made
    for one in world.journal.accepted:
        of = one.table, one.key
        if one.kind == "delete":
            deleted[of] = max(deleted.get(of, ""), one.hlc)
        elif one.kind == "insert":
            born[of] = max(born.get(of, ""), one.hlc)
        in_vain = one.kind != "insert" and one.table != "memo" and deleted.get(of, "") > born.get(of, "")
        for name, value in one.fields.items():
            said = json.dumps(_now(value), sort_keys=True)
            written[one.table, one.key, name].add(said)
            if not in_vain:
                place = one.table, one.key, name
                last[place] = max(last.get(place, ("", "", "")), (one.hlc, one.writer, said))
    for branch in world.branches:
        for table, rows in branch.rows().items():
            for key, row in rows.items():
                for name in row.keys() & {*FIELDS.get(table, []), *MORE_FIELDS.get(table, []), "hue", "size"}:
                    said = json.dumps(_wire(row[name]), sort_keys=True)
                    place = table, key, name
                    if (
                        said == "null"
                        and (name == "size" or "columns" in world.features)
                        and (place not in last or last[place][0] < deleted.get((table, key), ""))
                    ):
                        continue  # made, or made anew, before there was the column or by a replica that has it no more
                    assert said in written[place], (place, said)
                    if (table, key) not in deleted:
                        assert said == last[place][2], (branch.network.number, place, said, last[place])


def check_what_was_deleted_is_gone_and_nothing_else(world: World) -> None:
    """Where deletes win. A tie, and what came after deletions were forgotten, is nobody's to foretell."""
    there = world.branches[0].rows()
    for (table, key), history in _histories(world).items():
        if table in ("memo", "bill", "item"):
            continue
        born = max((one.hlc for one in history if one.kind in ("insert", "backfill")), default=None)
        died = max((one.hlc for one in history if one.kind == "delete"), default=None)
        if died is None and born is not None:
            assert key in there[table], f"{table} {key} is gone, and nobody has deleted it"
        elif died is not None and died != born and not world.journal.purged:
            assert (key in there[table]) == (born is not None and born > died), f"{table} {key}: {history}"


def check_edits_win(world: World) -> None:
    """A memo that was edited and deleted, neither seeing the other, is there; one that was deleted with all edits seen
    is not. What a server has lost, and is told again with an older stamp than the delete's, the deleter may have seen:
    the positions of that past count for nothing."""
    there = world.branches[0].rows()["memo"]
    lost = {one.said for one in world.journal.lost}
    for (table, key), history in _histories(world).items():
        deletes = [one for one in history if one.kind == "delete"]
        if table != "memo" or len(deletes) != 1 or world.journal.purged:
            continue
        (gone,) = deletes
        edits = [one for one in history if one is not gone and one.kind != "backfill"]
        unseen = [
            one
            for one in edits
            if one.branch != gone.branch
            and one.base < gone.version
            and one.version > gone.base
            and not (one.said in lost and one.hlc < gone.hlc)
        ]
        if unseen:
            assert key in there, f"memo {key}: {unseen} is lost to {gone}"
        elif all(one.version <= gone.base and one.hlc < gone.hlc for one in edits):
            assert key not in there, f"memo {key} is back: {history}"


def check_no_conflict_was_decided_silently(world: World) -> None:
    """Of a manual field, and of an aggregate, nothing was taken from who had not seen what another replica wrote."""
    of_field, of_aggregate = defaultdict[str, list[Accepted]](list), defaultdict[str, list[Accepted]](list)
    for one in world.journal.accepted:
        if one.kind == "backfill":
            continue
        if one.table == "doc" and (one.kind == "delete" or "body" in one.fields):
            _check_seen(of_field[one.key], one)
        elif one.table in ("bill", "item"):
            _check_seen(of_aggregate[json.loads(one.key)[0]], one)


def _check_seen(before: list[Accepted], one: Accepted) -> None:
    if one.table == "doc" and one.kind == "insert" and before and before[0].kind == "delete":
        if one.hlc <= before[0].hlc:
            return  # it was made before the record was deleted, and is without effect
        before.clear()  # another life
    own = max((each.base for each in before if each.branch == one.branch), default=0)
    seen = max(one.base, own)  # a base of a lost past counts as 0, but what one has written over oneself was seen
    for other in before:
        if other.branch != one.branch and other.version > seen and not _agree(other, one, before):
            raise AssertionError(f"{one} was taken over {other}, which it had not seen")
    if one.kind == "delete" and one.table == "doc":
        before.clear()  # nothing of it is left that could be lost
    before.append(one)


def _agree(other: Accepted, one: Accepted, before: list[Accepted]) -> bool:
    """Whether the two say the same, or the later one knew the value that it found, or says it, too, or nothing was
    there to be lost."""
    if one.table != "doc":
        return (one.kind, one.table, one.fields) == (other.kind, other.table, other.fields)
    if one.kind == "delete" or other.kind == "delete":
        return one.kind == other.kind or one.kind == "insert"
    was = one.fields["body"].get("was") if isinstance(one.fields["body"], dict) else None
    stands = max(before, key=lambda each: (each.hlc, each.writer))
    standing = _now(stands.fields.get("body"))
    return _now(one.fields["body"]) in (_now(other.fields["body"]), standing) or (was is not None and was == standing)


def check_articles(world: World) -> None:
    """A price is the last one that the server has written itself, or else the last one of any replica. A serial number
    is the first that was taken: who had seen one, and would have changed it, finds that parked."""
    for key, row in world.branches[0].rows()["article"].items():
        history = _histories(world)["article", key]
        prices = [one for one in history if "price" in one.fields]
        last = max(prices, key=lambda one: (one.writer == SERVER, one.hlc, one.writer))
        assert row["price"] == last.fields["price"], (key, row, last)
        serials = [one for one in history if one.fields.get("serial") is not None]
        first = min(serials, key=lambda one: (one.hlc, one.writer), default=None)
        assert row["serial"] == (first.fields["serial"] if first else None), (key, row, first)
        if not world.was_restored:
            _check_serials([one for one in history if "serial" in one.fields])


def _check_serials(history: list[Accepted]) -> None:
    """Nothing was taken from who had seen another one. A write that lost has the one that stands told once more."""
    for place, one in enumerate(history):
        before = [other for other in history[:place] if other.fields["serial"] is not None]
        if not before or one.fields["serial"] is None or one.kind == "backfill":
            continue
        stands = min(before, key=lambda other: (other.hlc, other.writer))
        value = stands.fields["serial"]
        told = max(other.version for other in history[:place] if other is stands or other.fields["serial"] != value)
        seen = told <= one.base or stands.writer == one.writer
        assert one.fields["serial"] == value or not seen, f"{one} was taken over {stands}, which it had seen"


def check_what_is_merged(world: World) -> None:
    """Each increment that was accepted counts once; a label that was put and never cut is there; the greatest and the
    least number stand, and the longest motto, of those that nobody has seen and written over (a person's choice may be
    shorter); and each letter that was not given up is there once."""
    if world.was_restored:
        return  # what it has lost of this is lost, or came back as it was on one of the replicas
    rows = world.branches[0].rows()[MERGED]
    histories = _histories(world)
    for key, row in rows.items():
        said = [one.fields for one in histories[MERGED, key]]
        assert row["stock"] == sum(fields["stock"]["add"] for fields in said if isinstance(fields.get("stock"), dict))
        changes = [fields["labels"] for fields in said if isinstance(fields.get("labels"), dict)]
        put = {label for change in changes for label in change.get("put", [])}
        cut = {label for change in changes for label in change.get("cut", [])}
        assert put - cut <= set(json.loads(row["labels"])) <= put
        assert row["best"] == max(fields["best"] for fields in said if "best" in fields)
        assert row["least"] == min(fields["least"] for fields in said if "least" in fields)
        mottoes = [one for one in histories[MERGED, key] if "motto" in one.fields]
        stand = [
            _now(one.fields["motto"]) for one in mottoes if not any(other.base >= one.version for other in mottoes)
        ]
        assert row["motto"] == max(stand, key=lambda one: (len(one), one))
    written = "".join(row["note"] for row in rows.values())
    assert len(written) == len(set(written))
    for branch in world.branches:
        if not any(table == MERGED for _, table, _, _ in branch.watched(gone=True)):
            assert _letters(branch) <= set(written)


# ------------------------------------------------------------------------------------------------ reading


def _histories(world: World) -> Histories:
    found: Histories = defaultdict(list)
    for one in world.journal.accepted:
        found[one.table, one.key].append(one)
    return found


def _said(rows: dict[int, tuple[str, str, str, str | None]]) -> Counter[Said]:
    return count(rows.values())


def _held(branch: Branch) -> set[tuple[str, str]]:
    """The records that are not the server's here: of an aggregate all of them."""
    held = {(table, key) for _, table, key, _ in _said(branch.waiting())} | branch.contested()
    roots = {json.loads(key)[0] for table, key in held if table in ("bill", "item")}
    parts = {("bill", json.dumps([root])) for root in roots}
    return held | parts | {("item", key) for key in branch.rows()["item"] if json.loads(key)[0] in roots}


def _assert_equal(one: Rows, other: Rows, held: set[tuple[str, str]]) -> None:
    for table in one:
        here = {key: row for key, row in one[table].items() if (table, key) not in held}
        there = {key: row for key, row in other[table].items() if (table, key) not in held}
        assert here.keys() == there.keys(), (table, here.keys() ^ there.keys())
        for key, row in here.items():
            names = row.keys() & there[key].keys()
            different = {name: (row[name], there[key][name]) for name in names if row[name] != there[key][name]}
            assert not different, (table, key, different)


def _letters(branch: Branch) -> set[str]:
    found = set[str]()
    for (fields,) in branch.replica.asked(f"SELECT fields FROM world_watched WHERE table_name = '{MERGED}'"):
        note = json.loads(fields or "{}").get("note")
        if isinstance(note, dict):
            found |= set(note["now"]) - set(note["was"])
    return found


def _now(value: Any) -> Any:
    return value["now"] if isinstance(value, dict) and "now" in value else value


def _wire(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value
