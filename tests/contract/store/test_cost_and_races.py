"""What a push costs, and pushes at once."""

from __future__ import annotations

import threading

from sqlalchemy import event

from tests.contract.store.devices import Device, customer


def test_a_push_is_as_many_statements_for_a_thousand_ops_as_for_ten(ann, store):
    counts = []
    for size in (10, 1000):
        statements: list[str] = []

        def count(_connection, _cursor, statement, *_rest, seen=statements):
            seen.append(statement)

        ops = [customer(ann, n, ann.seq) for n in range(size)]
        ann.push(ops[0])  # the hourly purge is not part of a push
        event.listen(store.database.engine, "before_cursor_execute", count)
        ann.push(*ops[1:], customer(ann, 0, 9999))
        event.remove(store.database.engine, "before_cursor_execute", count)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 12


def test_pushes_at_once_to_one_scope_all_stand_and_a_reader_misses_none(store, join):
    devices, reader = [join() for _ in range(4)], join()
    done, errors = threading.Event(), []

    def write(device: Device, first: int) -> None:
        try:
            for number in range(first, first + 20):
                device.push(customer(device, number))
        except Exception as error:
            errors.append(error)

    seen: list[int] = []

    def read() -> None:
        finished = False
        while not finished:
            finished = done.is_set()
            seen.extend(r.key[0] for r in reader.pull(limit=7).records)
            while (page := reader.pull(limit=7)).more:
                seen.extend(r.key[0] for r in page.records)
            seen.extend(r.key[0] for r in page.records)

    writers = [threading.Thread(target=write, args=(device, index * 100)) for index, device in enumerate(devices)]
    reading = threading.Thread(target=read)
    for thread in (*writers, reading):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reading.join()
    assert errors == []
    assert sorted(seen) == sorted(index * 100 + n for index in range(4) for n in range(20))
