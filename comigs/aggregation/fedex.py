"""FedEx-LoRA: average A and B, and send what the average misses (arXiv 2410.09432)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates
from comigs.aggregation.flora import arriving, deliver, is_stack, remember, stacked
from comigs.aggregation.mean import combine as mean
from comigs.aggregation.sizes import OwnNames
from comigs.aggregation.stacks import Stacks
from comigs.mixture.ranks import pairs


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """mean(A), mean(B), and s (mean(B A) - mean(B) mean(A)) as a stack of rank (n + 1) r."""
    out = mean(updates, weights, scale, kept)
    for a, b in sorted(pairs(dict(out))):
        right, left = stacked(a, b, updates, weights, scale)
        s = scale(out[a].shape[0])
        out |= remember(a, (torch.cat([right, out[a]]), torch.cat([left, -s * out[b]], 1)), kept)
    return out


AGGREGATOR = Aggregator(
    combine,
    deliver,
    lambda name: not is_stack(name),
    sizes=lambda: Stacks(OwnNames()),
    arriving=arriving,
)
