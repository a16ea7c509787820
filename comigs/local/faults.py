"""Poison, for simulations: what a client that attacks the average sends instead of its update.

Its own state stays as it trained it. Only aggregation is attacked; nothing here tries to hide.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.config.privacy import FaultsConfig
from comigs.messages.update import norm_of
from comigs.seeds import generator

Tensors = Mapping[str, Tensor]


def poison(
    faults: FaultsConfig, update: Tensors, seed: int, client: int, number: int
) -> dict[str, Tensor]:
    """`faults.scale` times the update, turned round or as Gaussian noise of its norm.

    Args:
        update: what the client has changed, by name of tensor.
        number: the round; noise is drawn from (seed, client, round).
    """
    if faults.kind == "flip":
        return {name: -faults.scale * tensor for name, tensor in update.items()}
    rng = generator(seed, client, number, "poison")
    noise = {n: torch.randn(t.shape, generator=rng) for n, t in sorted(update.items())}
    factor = faults.scale * norm_of(update) / norm_of(noise)
    return {name: factor * tensor for name, tensor in noise.items()}
