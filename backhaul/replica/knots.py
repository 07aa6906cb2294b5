"""What is tied together is one: sets that grow into each other (union-find)."""

from __future__ import annotations

Node = tuple[str, object]


class Knots:
    def __init__(self) -> None:
        self._above: dict[Node, Node] = {}

    def tie(self, first: Node, *others: Node) -> None:
        for other in others:
            self._above[self.of(other)] = self.of(first)
        self.of(first)

    def together(self, one: Node, other: Node) -> bool:
        return self.of(one) == self.of(other)

    def of(self, node: Node) -> Node:
        """The set that the node is in, by the name of one of its nodes: the same for all, until more is tied."""
        path = []
        while (above := self._above.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for one in path:
            self._above[one] = node
        return node

    def all(self) -> list[set[Node]]:
        found: dict[Node, set[Node]] = {}
        for node in list(self._above):
            found.setdefault(self.of(node), set()).add(node)
        return list(found.values())
