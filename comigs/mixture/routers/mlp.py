"""Two layers with 16 hidden numbers and a GELU between them, without biases."""

from torch import nn

HIDDEN = 16


def mlp(width: int, experts: int) -> nn.Module:
    first = nn.Linear(width, HIDDEN, bias=False)
    return nn.Sequential(first, nn.GELU(), nn.Linear(HIDDEN, experts, bias=False))


ROUTER = mlp
