"""How the outputs of what a work waited for become its input."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.errors import Misused
from backhaul.work import OneTimeWork, chain, mergers
from tests.unit.work.desk import Desk


def test_overwriting_takes_the_later_value_and_so_the_parents() -> None:
    assert mergers.merged(None, {"a": 1, "b": 1}, [{"b": 2, "c": 2}, {"c": 3}]) == {"a": 1, "b": 2, "c": 3}
    assert mergers.merged("overwriting", {"a": 1}, []) == {"a": 1}


@pytest.mark.parametrize(
    ("own", "outputs", "result"),
    [
        ({"a": 1}, [], {"a": [1]}),
        ({"a": 1}, [{"a": [2, 3]}, {"b": "x"}], {"a": [1, 2, 3], "b": ["x"]}),
        ({"a": None}, [{"a": "x"}], {"a": [None, "x"]}),
        ({"a": []}, [{"a": 1.5}], {"a": [1.5]}),
        ({"a": {"b": 1}}, [{"a": {"c": 2}}], {"a": [{"b": 1}, {"c": 2}]}),
    ],
)
def test_array_creating_makes_a_list_of_each_value(
    own: dict[str, Any], outputs: list[dict[str, Any]], result: dict[str, Any]
) -> None:
    assert mergers.merged("array_creating", own, outputs) == result


@pytest.mark.parametrize("other", ["x", 1.5, True, {"b": 1}, None, [1, "x"]], ids=str)
def test_array_creating_refuses_values_of_two_kinds(other: Any) -> None:
    with pytest.raises(Misused, match="'a'"):
        mergers.merged("array_creating", {"a": 1}, [{"a": other}])


def lengths(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"lengths": [len(one) for one in inputs]}


def no_dict(inputs: list[dict[str, Any]]) -> Any:
    return inputs


def test_a_merger_of_the_hosts_is_found_by_its_dotted_path() -> None:
    assert mergers.merged(f"{__name__}.lengths", {}, [{"a": 1}]) == {"lengths": [0, 1]}
    with pytest.raises(Misused, match="no dict"):
        mergers.merged(f"{__name__}.no_dict", {}, [])


@pytest.mark.parametrize("name", ["nowhere.at_all", "nothing", "json.nothing", ".dot", "dot."])
def test_a_merger_that_is_nowhere_is_named(name: str) -> None:
    with pytest.raises(Misused, match="merger"):
        mergers.merged(name, {}, [])


def test_what_is_merged_may_take_10_kib() -> None:
    with pytest.raises(Misused, match="merged input"):
        mergers.merged(None, {"a": "x" * 6_000}, [{"b": "x" * 6_000}])


def test_outputs_come_in_the_order_in_which_the_parents_were_named(desk: Desk) -> None:
    parents = [OneTimeWork(f"shop.{name}", id=name) for name in ("z", "a", "m")]
    last = OneTimeWork("shop.last", merger="array_creating")
    desk.works.enqueue(chain(*parents).then(last))
    for parent in reversed(parents):
        desk.run(parent, lambda context: {"who": context.id})
    seen: list[Any] = []
    desk.run(last, lambda context: seen.append(context.input))
    assert seen == [{"who": ["z", "a", "m"]}]


def test_values_of_two_kinds_fail_the_work_unrun(desk: Desk) -> None:
    first, second = OneTimeWork("shop.a"), OneTimeWork("shop.b")
    last = OneTimeWork("shop.last", merger="array_creating")
    desk.works.enqueue(chain(first, second).then(last))
    desk.run(first, lambda context: {"who": 1})
    desk.run(second, lambda context: {"who": "me"})
    desk.run(last)
    assert (desk.state(last), desk.ran) == ("FAILED", [first.id, second.id])


def test_a_merger_is_asked_about_the_own_input_of_work_that_waited_for_nothing(desk: Desk) -> None:
    work, seen = OneTimeWork("shop.a", input={"k": 1}, merger="array_creating"), []
    desk.works.enqueue(work)
    desk.run(work, lambda context: seen.append(context.input))
    assert seen == [{"k": [1]}]
