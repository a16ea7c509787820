"""What an aggregator keeps and sends back, as far as its bytes go: the traffic formula.

Each follows its aggregator's `combine` and `deliver` on shapes alone, so that traffic is known
before a run starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

FLOAT = 4  # bytes; only float32 travels down
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Group:
    """Clients that share tensors of equal names and shapes."""

    shapes: Shapes
    clients: Sequence[int]


class Sizes(Protocol):
    """The state of the server in bytes; begins as nothing."""

    def add(self, groups: Sequence[Group]) -> None:
        """Take in one round's updates, none where too few came.

        A group without clients tells that its tensors are kept.
        """

    def to(self, shapes: Shapes, fresh: bool) -> int:
        """Bytes that a client gets.

        Args:
            shapes: of the tensors that it shares.
            fresh: whether it took part in the last round.
        """


class OwnNames:
    """Sizes where a client gets the tensors that it shares and whose rows the server all has."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def add(self, groups: Sequence[Group]) -> None:
        for name, shape in (pair for group in groups for pair in group.shapes.items()):
            self._rows[name] = max(shape[0], self._rows.get(name, 0))

    def to(self, shapes: Shapes, fresh: bool) -> int:
        return bytes_of({n: s for n, s in shapes.items() if self._rows.get(n, 0) >= s[0]})


def bytes_of(shapes: Shapes) -> int:
    """Bytes of float32 tensors."""
    return FLOAT * sum(map(prod, shapes.values()))
