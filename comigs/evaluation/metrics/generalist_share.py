"""The share of the gates that generalist experts have, from 0 to 1."""

from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.evaluation.metrics import mean_over_tokens
from comigs.mixture.gates import Gates


def generalist_share(model: nn.Module, tokens: Tensor, config: ClientConfig) -> float:
    return mean_over_tokens(model, tokens, config, share)


def share(block: Gates) -> Tensor | float:
    """Of one layer's last pass."""
    generalists = sum(name.startswith("generalist_") for name in block.names)
    if block.routing is None:
        return generalists / len(block.names)
    gates, chosen = block.routing.gates, block.routing.chosen
    return (gates * (chosen < generalists)).sum() / gates.sum()


METRIC = generalist_share
