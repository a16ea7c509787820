"""Numbers about a client's model as received, on its validation text: one file here for each.

A file defines `METRIC`; `log.metrics` names the files. What it returns leaves the device.
"""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from comigs.backbone.head import backbone_of
from comigs.config.settings import ClientConfig
from comigs.data.tokens import consecutive_windows
from comigs.evaluation.perplexity import evaluation_batch
from comigs.mixture.experts import ExpertMLP, expert_blocks
from comigs.schema.byfile import find_in

Metric = Callable[[nn.Module, Tensor, ClientConfig], float]
"""From a model, a stream of tokens and the client's configuration to a finite number."""


def find_metric(name: str) -> Metric:
    """Return `METRIC` of comigs/evaluation/metrics/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    metric: Metric = find_in(sys.modules[__name__], "log.metrics", name).METRIC
    return metric


def measured(
    names: Sequence[str], model: nn.Module, tokens: Tensor, config: ClientConfig
) -> dict[str, float]:
    """Every metric of `names`, by name."""
    return {name: find_metric(name)(model, tokens, config) for name in names}


@torch.no_grad()
def mean_over_tokens(
    model: nn.Module,
    tokens: Tensor,
    config: ClientConfig,
    value: Callable[[ExpertMLP], Tensor | float],
) -> float:
    """The mean over tokens and layers of what a mixture did with a batch of them.

    Args:
        value: the mean of a block's last pass, over its tokens.
    """
    blocks, device = expert_blocks(model), next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64)
    for windows in consecutive_windows(tokens, evaluation_batch(config), config.data.seq_len):
        backbone_of(model)(input_ids=windows[:, :-1].to(device), use_cache=False)
        means = torch.tensor([float(value(block)) for block in blocks], dtype=torch.float64)
        total += means.mean() * windows[:, :-1].numel()
    return float(total / (len(tokens) - 1))
