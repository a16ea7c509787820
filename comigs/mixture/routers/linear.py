"""One matrix, E x d, without bias (CoMiGS, arXiv 2409.13931, section 3)."""

from torch import nn


def linear(width: int, experts: int) -> nn.Module:
    return nn.Linear(width, experts, bias=False)


ROUTER = linear
