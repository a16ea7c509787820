"""Updates that are under way when their round has closed: discarded, or kept for a later round."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from comigs.federation.closing import Closing, late_after
from comigs_server.fleet.update import Update


@dataclass(frozen=True)
class Late:
    """An update under way: its tensors, its weight, and simulated seconds until it is there."""

    tensors: Mapping[str, Tensor]
    weight: float
    due: float


def due(late: Mapping[int, Late], closing: Closing) -> dict[int, Update]:
    """The late updates that arrive within the round that closes, by client."""
    return {i: Update(i, u.tensors, u.weight) for i, u in late.items() if u.due <= closing.seconds}


def postpone(
    late: Mapping[int, Late], good: Mapping[int, Update], arrivals: Mapping[int, float],
    closing: Closing,
) -> dict[int, Late]:  # fmt: skip
    """What is still under way after the round. Until it is there, its client is not asked again.

    Args:
        good: by client, the round's updates, in time or not.
        arrivals: by client, simulated seconds from the start of the round to its update.
    """
    left = late_after({i: u.due for i, u in late.items()}, arrivals, closing)
    source: dict[int, Late | Update] = {**late, **{i: good[i] for i in closing.late}}
    return {i: Late(source[i].tensors, source[i].weight, seconds) for i, seconds in left.items()}
