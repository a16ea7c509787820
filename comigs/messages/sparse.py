"""The numbers of codecs that send a tensor's greatest elements only (`comigs.messages.codecs`)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sparse:
    """How elements are rounded: their levels to each side of 0, and whether before the choice."""

    levels: int
    rounds_first: bool = False

    @property
    def dtype(self) -> str:
        """Of the array that carries them."""
        return "uint8" if self.halves else "int8"

    @property
    def halves(self) -> bool:
        """Whether two of them are in a byte, the first in its upper half, 8 added to each."""
        return self.levels <= 7

    def size(self, count: int) -> int:
        """Bytes of `count` elements."""
        return (count + 1) // 2 if self.halves else count

    def pack(self, values: Tensor) -> NDArray[np.generic]:
        """Whole numbers of at most `levels`, int8."""
        if not self.halves:
            return values.numpy()
        each = np.zeros(2 * self.size(len(values)), "uint8")
        each[: len(values)] = values.numpy() + 8
        return each[::2] << 4 | each[1::2]

    def unpack(self, array: NDArray[np.generic], count: int) -> Tensor:
        """The reverse of `pack`: `count` numbers, int8."""
        if not self.halves:
            return torch.from_numpy(array)
        both = array.astype("uint8")
        each = np.stack([both >> 4, both & 15], -1).reshape(-1)[:count]
        return torch.from_numpy(each.astype("int8") - np.int8(8))


SPARSE = {
    "topk-int8": Sparse(127),
    "int8-topk": Sparse(127, rounds_first=True),
    "topk-int4": Sparse(7),
    "int4-topk": Sparse(7, rounds_first=True),
}
