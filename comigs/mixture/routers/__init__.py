"""Kinds of router, one file each, which defines `ROUTER`: what gives every token its logits.

A kind makes a module from the width d of the hidden states and the number E of experts; the module
maps fp32 hidden states, ... x d, to logits, ... x E, each token by itself. Its weights are matrices
that every token is multiplied with once: costs follow from their sizes.
"""

import sys
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from comigs.schema.byfile import find_in

RouterKind = Callable[[int, int], nn.Module]


def make_router(kind: str, width: int, experts: int) -> nn.Module:
    """Return the module that `ROUTER` of comigs/mixture/routers/<kind>.py makes.

    Raises:
        BadInput: there is none of that name.
    """
    router: RouterKind = find_in(sys.modules[__name__], "experts.router", kind, "ROUTER")
    return router(width, experts)


@lru_cache(maxsize=64)
def router_shapes(kind: str, width: int, experts: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a router's weights, by name. Raises: BadInput, as `make_router`."""
    with torch.device("meta"):
        router = make_router(kind, width, experts)
    return {name: tuple(weight.shape) for name, weight in router.named_parameters()}
