"""FLoRA: all devices' LoRA stacked onto the base weights, then a new LoRA (arXiv 2409.05976)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comigs.methods.base import Method, unrouted_generalists, without_dropout

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival


def receive(arrival: Arrival) -> dict[str, float]:
    """Add the stack to the frozen weights and begin a new LoRA, with new optimiser moments."""
    from comigs.mixture.adapters import init_adapters
    from comigs.mixture.deltas import add_arrived

    add_arrived(arrival.model, arrival.shared)
    init_adapters(arrival.model, arrival.config.seed, arrival.client, round_number=arrival.round)
    arrival.moments.clear()
    return {}


METHOD = Method(
    name="flora",
    paper="arXiv 2409.05976",
    summary="the devices' LoRA are stacked and added to the frozen weights; then a new LoRA",
    shares=lambda name: ".lora_" in name,
    aggregator="flora",
    experts=unrouted_generalists,
    receive=receive,
    restarts=True,
    feedback=False,
    accepts=without_dropout,
)
