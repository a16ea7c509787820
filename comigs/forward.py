"""How the forward pass runs while a client trains: with activations recomputed, or compiled."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from comigs.config import TrainConfig
from comigs.experts import ExpertMLP


@contextmanager
def forward_of(model: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Within the context, the model's forward pass is the one that `config` asks for.

    With `checkpointing` every decoder layer keeps only its input and runs again, with the same
    dropout, in the backward pass.
    """
    replaced: dict[nn.Module, Any] = {}
    if config.checkpointing:
        for layer, block in _layers(model):
            replaced[layer] = partial(_checkpointed, block, layer.forward)
    if config.compile:
        replaced[model] = torch.compile(model.forward)
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            del module.forward  # the class's own shows again


def _layers(model: nn.Module) -> list[tuple[nn.Module, ExpertMLP]]:
    """Every decoder layer, with its mixture."""
    return [
        (layer, block)
        for layer in model.modules()
        for block in layer.children()
        if isinstance(block, ExpertMLP)
    ]


def _checkpointed(block: ExpertMLP, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = (nullcontext(), _routing_kept(block))
    return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: contexts, **kwargs)


@contextmanager
def _routing_kept(block: ExpertMLP) -> Iterator[None]:
    """The balance loss is of the first run; the second one must leave no trace in the block."""
    routing = block.routing
    try:
        yield
    finally:
        block.routing = routing
