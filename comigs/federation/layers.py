"""LISA (arXiv 2403.17919): in each round a client trains the experts of a few layers, drawn anew.

Every client draws its own `train.layers` layers from (seed, client, round), so that with enough
clients every layer has news in every round. In a layer that it did not draw, neither experts nor
attention LoRA move, nor a router that learns in the same steps; nothing of it is sent, and
moments stay as they are. Routers that take steps of their own learn in all layers.
"""

import random
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.seeds import derive

T = TypeVar("T")


def layer_of(name: str) -> int:
    """The decoder layer that an adapter tensor is in: 3 of `model.layers.3.mlp.up_proj...`."""
    return next(int(part) for part in name.split(".") if part.isdigit())


def layers_of(names: Iterable[str]) -> list[int]:
    """The decoder layers of these tensors, in order."""
    return sorted(set(map(layer_of, names)))


def drawn(config: RunConfig, client: int, number: int, layers: Collection[int]) -> frozenset[int]:
    """The layers whose experts a client trains in round `number`.

    Args:
        layers: that there are.

    Raises:
        BadInput: there are fewer than `train.layers`.
    """
    count = config.train.layers
    if count is None or not layers:
        return frozenset(layers)
    if count > len(layers):
        raise BadInput(
            f"train.layers is {count}; the model has {len(layers)}: give fewer, or null",
            "train.layers",
        )
    rng = random.Random(derive(config.seed, client, number, "layers"))
    return frozenset(rng.sample(sorted(layers), count))


def of_round(config: RunConfig, client: int, number: int, of: Mapping[str, T]) -> dict[str, T]:
    """What is of the layers that a client trains in round `number`.

    Args:
        of: by name, something of the client's tensors, of every layer.

    Raises:
        BadInput: as `drawn`.
    """
    if config.train.layers is None:
        return dict(of)
    chosen = drawn(config, client, number, layers_of(of))
    return {name: value for name, value in of.items() if layer_of(name) in chosen}
