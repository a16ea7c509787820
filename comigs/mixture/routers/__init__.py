"""Kinds of router, one file each, which defines `ROUTER`: what gives every token its logits.

A kind makes a module from the width d of the hidden states and the number E of experts; the module
maps fp32 hidden states, ... x d, to logits, ... x E, each token by itself. Its weights are matrices
that every token is multiplied with once: costs follow from their sizes.

A module may have `follow(before)`: then the router of each layer but the first is told of that of
the layer before it, may read what it left of the same pass, and may use its weights. `forget()`
lets go what a pass has left.

A module may have `gain`, 1 x 1: what the mixture puts out is multiplied by 1 + gain.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from comigs.errors import BadInput
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
def router_shapes(
    kind: str, width: int, experts: int, first: bool = True
) -> dict[str, tuple[int, ...]]:
    """Shapes of a router's weights, by name. Raises: BadInput, as `make_router`.

    Args:
        first: whether it is of the first layer.
    """
    with torch.device("meta"):
        router = make_router(kind, width, experts)
        if not first and follows(router):
            router.follow(make_router(kind, width, experts))
    return {name: tuple(weight.shape) for name, weight in router.named_parameters()}


def follows(router: object) -> TypeGuard[Any]:
    """Whether a router reads what that of the layer before it has left."""
    return hasattr(router, "follow")


def forget(router: object) -> None:
    """Let go what a router keeps of the last pass, if anything."""
    if hasattr(router, "forget"):
        router.forget()


def rescaled(gates: Tensor, router: object) -> Tensor:
    """Gates, times what the router multiplies a mixture by, if anything."""
    return gates * (1 + router.gain) if rescales(router) else gates


def rescales(router: object) -> TypeGuard[Any]:
    """Whether gates need not sum to 1, since the router has a factor of them."""
    return hasattr(router, "gain")


def check_scope(kind: str, scope: str) -> None:
    """Refuse one decision for all layers of routers that follow each other.

    Raises:
        BadInput: as said; or as `make_router`.
    """
    with torch.device("meta"):
        router = make_router(kind, 1, 2)
    if scope == "global" and follows(router):
        raise BadInput(
            f"router.scope is 'global'; experts.router {kind!r} decides in every layer, from the "
            "layers before it: set router.scope=layer"
        )
