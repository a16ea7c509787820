"""Nothing is combined: every client gets every client's tensors, named `<client>/<tensor>`."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from comigs.aggregation import Aggregator, Arriving, Scale, Tensors, Updates
from comigs.aggregation.sizes import Group, Shapes, bytes_of


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """Each client's latest tensors, side by side."""
    return {f"{i}/{name}": t for i in sorted(updates) for name, t in updates[i].items()}


def everyones(
    kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
) -> dict[str, Tensor]:
    """All of them, the client's own among them."""
    return dict(kept)


class Everyones:
    """Bytes of every client's latest tensors."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}

    def add(self, groups: Sequence[Group]) -> None:
        self._of |= {i: bytes_of(group.shapes) for group in groups for i in group.clients}

    def to(self, shapes: Shapes, fresh: bool) -> int:
        return sum(self._of.values())


def arriving(name: str) -> Arriving:
    return Arriving(name.partition("/")[2])


AGGREGATOR = Aggregator(combine, everyones, weighs=False, sizes=Everyones, arriving=arriving)
