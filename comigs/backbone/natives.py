"""Native experts as linears: Transformers stacks their weights, PEFT wants modules."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from comigs.backbone.families import Family


class Order(NamedTuple):
    """Rows by the native expert that they go to.

    Attributes:
        forth: the rows, those of the first native expert first.
        back: where each row is then.
        ends: where the rows of each native expert end.
    """

    forth: Tensor
    back: Tensor
    ends: Tensor


def order_of(native: Tensor, count: int) -> Order:
    """The order of rows whose native experts, of `count`, are `native`."""
    forth = native.argsort()
    ends = torch.searchsorted(
        native[forth].contiguous(), torch.arange(count, device=native.device), right=True
    )
    return Order(forth, forth.argsort(), ends.to(torch.int32))


class NativeLinear(nn.Linear):
    """The same linear of every native expert, frozen; `weight` is J x out x in."""

    def __init__(self, weight: nn.Parameter) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = weight, None
        _, self.out_features, self.in_features = weight.shape

    def each(self, x: Tensor, order: Order) -> Tensor:
        """Map R x in to R x out, every row by the native expert that it goes to."""
        out: Tensor = _Grouped.apply(x, self.weight, order)
        return out


class _Grouped(torch.autograd.Function):
    """Products of rows with the weight of each one's native expert, which gets no gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *args: object) -> Tensor:
        x, weight, order = args
        ctx.weight, ctx.order = weight, order  # type: ignore[attr-defined]
        return _product(x, weight.mT, order)  # type: ignore[arg-type,attr-defined]

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _product(grads[0], ctx.weight, ctx.order), None, None  # type: ignore[attr-defined]


def _product(x: Tensor, weight: Tensor, order: Order) -> Tensor:
    return F.grouped_mm(x[order.forth].to(weight.dtype), weight, offs=order.ends)[order.back]


def unstack(model: nn.Module, family: Family) -> None:
    """Make linears of the stacked weights of a model's native experts.

    `gate_up_proj` becomes the module `gate_up`, and so on: PEFT takes the old names for tensors.

    Args:
        family: as `on_native_experts` returns it.
    """
    for path, natives in list(model.named_modules()):
        if path.endswith(f".{family.mlp}"):
            for name in (*family.up, family.down):
                weight = getattr(natives, f"{name}_proj")
                delattr(natives, f"{name}_proj")
                natives.add_module(name, NativeLinear(weight))


def stack(natives: nn.Module, linears: dict[str, NativeLinear]) -> nn.Module:
    """Undo `unstack` for the native experts of one layer, with the weights of `linears`."""
    for name, linear in linears.items():
        delattr(natives, name)
        natives.register_parameter(f"{name}_proj", linear.weight)
    return natives
