"""What is tied together is one: sets that grow into each other (union-find)."""

from __future__ import annotations

Node = tuple[str, object]


class Knots:
    def __init__(self) -> None:
        self._above: dict[Node, Node] = {}

    def tie(self, first: Node, *others: Node) -> None:
        for other in others:
            self._above[self._top(other)] = self._top(first)
        self._top(first)

    def together(self, one: Node, other: Node) -> bool:
        return self._top(one) == self._top(other)

    def all(self) -> list[set[Node]]:
        found: dict[Node, set[Node]] = {}
        for node in list(self._above):
            found.setdefault(self._top(node), set()).add(node)
        return list(found.values())

    def _top(self, node: Node) -> Node:
        path = []
        while (above := self._above.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for one in path:
            self._above[one] = node
        return node
