"""What methods in which peers' tensors arrive tell of them, where `log.metrics` has peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.messages.fields import METRIC

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors


def of_peers(
    arrival: Arrival, peers: Mapping[int, Tensors], graph: Mapping[int, float] | None = None
) -> dict[str, float]:
    """`comigs.evaluation.metrics.peers`, as `receive` returns it; nothing unless it is asked for.

    Args:
        arrival: whose model is still the client's own.
        peers: by number, the tensors that arrived.
        graph: by peer, a weight that has been learnt.
    """
    if "peers" not in (arrival.config.log.metrics or ()):
        return {}
    from comigs.evaluation.metrics.peers import influence

    valid, config, client = arrival.data.valid, arrival.config, arrival.client
    found = influence(arrival.model, valid, config, peers, client, arrival.round)
    numbers = {f"influence/{peer}": value for peer, value in found.items()}
    numbers |= {f"graph/{peer}": weight for peer, weight in (graph or {}).items()}
    return {f"{METRIC}peers/{name}": value for name, value in numbers.items()}
