"""`gelu_new` in one kernel, where transformers takes eight."""

from collections.abc import Iterable

from torch import nn
from transformers.activations import NewGELUActivation

from comigs.backbone.families import Family


def prefer_fast_activation(layers: Iterable[nn.Module], family: Family) -> None:
    """Give the MLPs of bare decoder layers that use `gelu_new` the same function from torch."""
    for layer in layers:
        mlp = layer.get_submodule(family.mlp)
        if isinstance(getattr(mlp, family.act), NewGELUActivation):
            setattr(mlp, family.act, nn.GELU(approximate="tanh"))
