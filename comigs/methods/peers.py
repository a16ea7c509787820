"""What methods in which peers' tensors arrive tell of them, where `log.metrics` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.messages.fields import METRIC

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors


def told(arrival: Arrival, metric: str, of: Mapping[str, float]) -> dict[str, float]:
    """Numbers of peers as `receive` returns them; none unless they are asked for."""
    asked = metric in (arrival.config.log.metrics or ())
    return {f"{METRIC}{metric}/{peer}": value for peer, value in of.items()} if asked else {}


def influences(arrival: Arrival, peers: Mapping[int, Tensors]) -> dict[str, float]:
    """`comigs.evaluation.metrics.influence`, while the client's model is still its own.

    Args:
        peers: by number, the tensors that arrived.
    """
    if "influence" not in (arrival.config.log.metrics or ()):
        return {}
    from comigs.evaluation.metrics.influence import influence

    valid, config, client = arrival.data.valid, arrival.config, arrival.client
    found = influence(arrival.model, valid, config, peers, client, arrival.round)
    return told(arrival, "influence", found)
