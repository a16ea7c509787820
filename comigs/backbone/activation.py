"""`gelu_new` in one kernel, where transformers takes eight."""

from torch import nn
from transformers.activations import NewGELUActivation

from comigs.backbone.families import Family, decoder_layers


def prefer_fast_activation(model: nn.Module, family: Family) -> None:
    """Give the MLPs of a bare model that use `gelu_new` the same function from torch."""
    for _, layer in decoder_layers(model, family):
        mlp = layer.get_submodule(family.mlp)
        if isinstance(getattr(mlp, family.act), NewGELUActivation):
            setattr(mlp, family.act, nn.GELU(approximate="tanh"))
