"""`gather`, with gradients beside the tensors that hold for the next round alone (`cobo`).

A gradient is named `<client>/midpoint/<tensor>`. It is of one meeting of two clients, so that an
old one says nothing about the next.
"""

from collections.abc import Sequence

from comigs.aggregation import Aggregator, Arriving
from comigs.aggregation.gather import combine, everyones
from comigs.aggregation.sizes import Group, Shapes, bytes_of
from comigs.messages.fields import MIDPOINT


def lasts(name: str) -> bool:
    return f"/{MIDPOINT}" not in name


class Latest:
    """Bytes of every client's latest tensors, and of the newest gradients."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._gradients = 0

    def add(self, groups: Sequence[Group]) -> None:
        self._gradients = 0
        for group in groups:
            gradients = {n: s for n, s in group.shapes.items() if n.startswith(MIDPOINT)}
            size = bytes_of(gradients)
            self._gradients += size * len(group.clients)
            self._of |= dict.fromkeys(group.clients, bytes_of(group.shapes) - size)

    def to(self, shapes: Shapes, fresh: bool) -> int:
        return sum(self._of.values()) + self._gradients


def arriving(name: str) -> Arriving:
    return Arriving(name.rpartition("/")[2])


AGGREGATOR = Aggregator(combine, everyones, lasts, weighs=False, sizes=Latest, arriving=arriving)
