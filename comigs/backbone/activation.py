"""Activations in another form: fast ones, and all of what an MLP does to its gate in one module."""

from collections.abc import Iterable
from statistics import NormalDist

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from comigs.backbone.families import Family, Layer


class SparseActivation(nn.Module):
    """Gemma 3n's: of every token, only the largest pre-activations pass, to `act`."""

    def __init__(self, act: nn.Module, sparsity: float) -> None:
        """Args:
        sparsity: the share of normally distributed pre-activations that becomes 0.
        """
        super().__init__()
        self.act, self.deviations = act, NormalDist().inv_cdf(sparsity)

    def forward(self, gate: Tensor) -> Tensor:
        """Map ... x F to ... x F."""
        mean = gate.mean(-1, keepdim=True)
        deviation = (gate - mean).square().mean(-1, keepdim=True).sqrt()  # of no tokens, too
        out: Tensor = self.act(F.relu(gate - mean - deviation * self.deviations))
        return out


def prefer_fast_activation(layers: Iterable[Layer], family: Family) -> None:
    """Give the MLPs of bare decoder layers activations that are whole, and fast.

    `gelu_new` is one kernel of torch's, where transformers takes eight; what Gemma 3n does before
    the activation becomes part of it.
    """
    for layer in layers if family.act else ():
        mlp = layer.module.get_submodule(layer.mlp)
        act = getattr(mlp, family.act)
        if isinstance(act, NewGELUActivation):
            setattr(mlp, family.act, nn.GELU(approximate="tanh"))
        sparsity = getattr(mlp, "activation_sparsity", 0.0)
        if isinstance(sparsity, float) and sparsity > 0:
            setattr(mlp, family.act, SparseActivation(act, sparsity))
            setattr(mlp, "activation_sparsity", 0.0)  # noqa: B010
