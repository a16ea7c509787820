"""Layer by layer, who carries the tokens: the load of each expert, which is its share of the gates,
that of all generalists, and the router's entropy in nats.

Told as routing/<layer>/load/<expert>, routing/<layer>/generalist_share and routing/<layer>/entropy,
layers from 1.
"""

import torch
from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.evaluation.metrics import passes
from comigs.evaluation.metrics.generalist_share import share
from comigs.evaluation.metrics.router_entropy import entropy
from comigs.mixture.gates import Gates


def routing(model: nn.Module, tokens: Tensor, config: ClientConfig) -> dict[str, float]:
    total: dict[str, float] = {}
    counted = 0
    for blocks, count in passes(model, tokens, config):
        counted += count
        for layer, block in enumerate(blocks, 1):
            for name, value in _of(block).items():
                key = f"{layer}/{name}"
                total[key] = total.get(key, 0.0) + value * count
    return {key: value / counted for key, value in total.items()}


def _of(block: Gates) -> dict[str, float]:
    loads = torch.full((len(block.names),), 1 / len(block.names))
    if block.routing is not None:
        gates = block.routing.gates
        loads = torch.zeros(len(block.names)).index_add(
            0, block.routing.chosen.flatten().cpu(), gates.flatten().float().cpu()
        ) / float(gates.sum())
    return {
        "generalist_share": float(share(block)),
        "entropy": float(entropy(block)),
        **{f"load/{name}": load for name, load in zip(block.names, loads.tolist(), strict=True)},
    }


METRIC = routing
