"""Products with the frozen weights for few rows, in the orientation that a CPU is fast at."""

from typing import Any

from torch import Tensor, nn

FEW = range(4, 65)  # rows; below and above, the usual way is faster


class Lying(nn.Module):
    """A plain linear, whose result for few rows is made lying, as (W x^T)^T.

    A CPU's BLAS takes up to twice as long for the rows of a batch of eight, at the head above all.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ... x in to ... x out."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) not in FEW:
            return nn.functional.linear(x, self.weight, self.bias)
        y = (self.weight @ rows.mT).mT.contiguous().view(*x.shape[:-1], -1)
        return y if self.bias is None else y.add_(self.bias)


def fast(linear: Any) -> Any:
    """The linear for few rows, where it is a plain one on a CPU; any other as it is."""
    plain = type(linear) is nn.Linear and linear.weight.device.type == "cpu"
    return Lying(linear) if plain and linear.weight.is_floating_point() else linear
