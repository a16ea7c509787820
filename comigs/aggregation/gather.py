"""Nothing is combined: every client gets every client's tensors, named `<client>/<tensor>`."""

from collections.abc import Mapping

from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates


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


AGGREGATOR = Aggregator(combine, everyones)
