"""The entropy of a router's softmax over all experts, in nats: 0 where it is sure, at most ln E."""

from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.evaluation.metrics import mean_over_tokens
from comigs.mixture.gates import Gates


def router_entropy(model: nn.Module, tokens: Tensor, config: ClientConfig) -> float:
    return mean_over_tokens(model, tokens, config, entropy)


def entropy(block: Gates) -> Tensor | float:
    """Of one layer's last pass."""
    if block.routing is None:
        return 0.0
    logs = block.routing.logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()


METRIC = router_entropy
