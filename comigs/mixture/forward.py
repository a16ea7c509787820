"""How the forward pass runs while a client trains: with activations recomputed, or compiled."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from comigs.backbone.families import decoder_layers, family_of
from comigs.backbone.head import backbone_of
from comigs.config.train import TrainConfig
from comigs.errors import BadInput
from comigs.mixture.experts import expert_blocks
from comigs.mixture.gates import Gates


@contextmanager
def forward_of(model: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Within the context, the model's forward pass is the one that `config` asks for.

    With `checkpointing` every decoder layer keeps only its input and runs again, with the same
    dropout, in the backward pass. With `compile` all but the head is compiled, once per shape.
    How the passes were routed is forgotten with the context.

    Raises:
        BadInput: to compile for a CPU without a C++ compiler.
    """
    replaced: dict[nn.Module, Any] = {}
    if config.checkpointing:
        for layer, block in _layers(model):
            replaced[layer] = partial(_checkpointed, block, layer.forward)
    if config.compile:
        _check_compiler(next(model.parameters()).device)
        backbone = backbone_of(model)
        replaced[backbone] = torch.compile(backbone.forward)
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            del module.forward  # the class's own shows again
        for expert_block in expert_blocks(model):
            expert_block.forget()


def _check_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise BadInput(
            f"train.compile needs the C++ compiler {compiler!r}, which is not there; install it, "
            "name another one in CXX, or set train.compile=false"
        )


def _layers(model: nn.Module) -> list[tuple[nn.Module, Gates]]:
    """Every decoder layer, with its mixture."""
    backbone = backbone_of(model)
    layers = decoder_layers(backbone, family_of(backbone.config.model_type))
    return [(layer.module, expert_blocks(layer.module)[0]) for layer in layers]


def _checkpointed(block: Gates, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = (nullcontext(), _routing_kept(block))
    return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: contexts, **kwargs)


@contextmanager
def _routing_kept(block: Gates) -> Iterator[None]:
    """The balance loss is of the first run; the second one must leave no trace in the block."""
    routing = block.routing
    try:
        yield
    finally:
        block.routing = routing
