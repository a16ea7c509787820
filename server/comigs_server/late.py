"""Updates that came after their round had closed: discarded, or kept for a later round."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from comigs_server.clock import Closing
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
    """What is still under way after the round; a client's new update replaces its old one.

    Args:
        good: by client, the round's updates, in time or not.
        arrivals: by client, simulated seconds from the start of the round to its update.
    """
    kept = {
        i: Late(u.tensors, u.weight, u.due - closing.seconds)
        for i, u in late.items()
        if u.due > closing.seconds and i not in good
    }
    for i in closing.late:
        kept[i] = Late(good[i].tensors, good[i].weight, arrivals[i] - closing.seconds)
    return kept
