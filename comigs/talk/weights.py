"""The small weights of n voices, padded to one shape, stacked for those that speak."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor

from comigs.mixture.attention import lora_a, lora_b


def low_rank(layer: LoraLayer, name: str) -> tuple[Tensor, Tensor]:
    """A (r x in, scaled) and B (out x r) of one expert on a linear, with its frozen correction."""
    a = lora_a(layer, name, torch.float32, layer.scaling[name])
    return a.detach(), lora_b(layer, name, torch.float32).detach()


def empty(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """A and B of rank 1 that add nothing."""
    a = next(iter(layer.lora_A.values())).weight
    b = next(iter(layer.lora_B.values())).weight
    return a.new_zeros(1, a.shape[1]), b.new_zeros(b.shape[0], 1)


def padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one number of dimensions as one, n x the largest sizes, filled up with 0."""
    sizes = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    rows = []
    for tensor in tensors:
        missing = [size - have for size, have in zip(sizes, tensor.shape, strict=True)]
        rows.append(F.pad(tensor, [n for each in reversed(missing) for n in (0, each)]))
    return torch.stack(rows)


class Stack:
    """A small weight of n voices, from which those of the voices that speak are taken, once."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._all = padded(tensors)
        self._taken: tuple[object, Tensor] = (None, self._all)

    def of(self, present: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """m x ..., of the voices `present`."""
        key = present, dtype
        if self._taken[0] != key:
            whole = present == tuple(range(len(self._all)))
            some = self._all if whole else self._all[list(present)]
            self._taken = key, some.to(dtype)
        return self._taken[1]
