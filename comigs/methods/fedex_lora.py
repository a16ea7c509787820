"""FedEx-LoRA: averaged A and B, and what the average misses on the base weights (2410.09432)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comigs.methods.base import Method, unrouted_generalists, without_dropout

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival


def receive(arrival: Arrival) -> dict[str, float]:
    """Add the residual to the frozen weights and take the averaged LoRA."""
    from comigs.mixture.adapters import load_adapter_tensors
    from comigs.mixture.deltas import add_arrived

    add_arrived(arrival.model, arrival.shared)
    averaged = {name: t for name, t in arrival.shared.items() if ".lora_" in name}
    load_adapter_tensors(arrival.model, averaged)
    return {}


METHOD = Method(
    name="fedex-lora",
    paper="arXiv 2410.09432",
    summary="A and B are averaged; the frozen weights take up what that misses of the mean delta",
    shares=lambda name: ".lora_" in name,
    aggregator="fedex",
    experts=unrouted_generalists,
    receive=receive,
    accepts=without_dropout,
)
