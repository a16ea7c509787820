"""Products with the frozen weights for few rows, in the form that a CPU is fast at.

Its BLAS lays a weight out anew in each product of several rows, which for eight takes as long as
the product. So batches keep weights laid out, up to a bound, and other few rows are computed lying.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

FEW = range(4, 65)  # rows; below and above, the usual way is faster
MOST = 2 << 30  # bytes that the weights of one base take a second time


class Room:
    """Bytes that are left for weights which are laid out."""

    def __init__(self, left: int = MOST) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Whether there is room for as many."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class Few(nn.Module):
    """A plain linear or Conv1D on a CPU."""

    def __init__(self, linear: nn.Linear | Conv1D, room: Room) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._turned, self._room = isinstance(linear, Conv1D), room
        self._laid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map ... x in to ... x out."""
        rows = x.reshape(-1, x.shape[-1])
        weight = self.weight.mT if self._turned else self.weight
        if len(rows) in FEW and len(x) == len(rows):  # a token of each row of a batch
            if self._laid is None and self._kept(weight):
                self._laid = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), len(rows))
            if self._laid is not None:
                y: Tensor = torch.ops.mkldnn._linear_pointwise(
                    rows, self._laid, self.bias, "none", [], ""
                )
                return y.view(*x.shape[:-1], -1)
        if len(rows) not in FEW or self._turned:
            return nn.functional.linear(x, weight, self.bias)
        y = (weight @ rows.mT).mT.contiguous().view(*x.shape[:-1], -1)
        return y if self.bias is None else y.add_(self.bias)

    def _kept(self, weight: Tensor) -> bool:
        usual = weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        return usual and self._room.take(weight.numel() * weight.element_size())


def fast(linear: Any, room: Room) -> Any:
    """The linear for few rows, where it is a plain one on a CPU; any other as it is."""
    plain = type(linear) in (nn.Linear, Conv1D) and linear.weight.device.type == "cpu"
    return Few(linear, room) if plain and linear.weight.is_floating_point() else linear
