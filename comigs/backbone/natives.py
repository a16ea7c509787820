"""Native experts as linears: Transformers stacks their weights, PEFT wants modules."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from comigs.backbone.families import Family
from comigs.errors import BadInput


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
    forth = native.argsort(stable=True)
    ends = torch.searchsorted(
        native[forth].contiguous(), torch.arange(count, device=native.device), right=True
    )
    return Order(forth, forth.argsort(), ends.to(torch.int32))


class NativeLinear(nn.Linear):
    """The same linear of every native expert, frozen; `weight` is J x out x in."""

    def __init__(self, weight: nn.Parameter) -> None:
        nn.Module.__init__(self)
        self.weight = weight
        self.register_parameter("bias", None)
        _, self.out_features, self.in_features = weight.shape

    @torch.compiler.disable  # it compiles products by group of bf16 alone
    def each(self, x: Tensor, order: Order) -> Tensor:
        """Map R x in to R x out, every row by the native expert that it goes to."""
        out: Tensor = _Grouped.apply(x, self.weight, order)
        return out


class _Grouped(torch.autograd.Function):
    """Products of rows with the weight of each one's native expert, which gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, order: Order) -> Tensor:
        ctx.weight, ctx.order = weight, order
        return _product(x, weight.mT, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _product(grad, ctx.weight, ctx.order), None, None


def _product(x: Tensor, weight: Tensor, order: Order) -> Tensor:
    return F.grouped_mm(x[order.forth].to(weight.dtype), weight, offs=order.ends)[order.back]


def unstack(model: PreTrainedModel, family: Family) -> None:
    """Make linears of the stacked weights of a model's native experts.

    `gate_up_proj` becomes the module `gate_up`, and so on: PEFT takes the old names for tensors.

    Args:
        family: as `on_native_experts` returns it.

    Raises:
        BadInput: some layers have none.
    """
    found = [each for path, each in model.named_modules() if path.endswith(f".{family.mlp}")]
    layers = model.config.num_hidden_layers
    if len(found) < layers:
        raise BadInput(
            f"experts.native is true; only {len(found)} of {layers} layers have native experts: "
            "set it to false",
            "experts.native",
        )
    for natives in found:
        for name in (*family.up, family.down):
            weight = getattr(natives, f"{name}_proj")
            delattr(natives, f"{name}_proj")
            natives.add_module(name, NativeLinear(weight))


def stack(natives: nn.Module, linears: dict[str, NativeLinear]) -> nn.Module:
    """Undo `unstack` for the native experts of one layer, with the weights of `linears`."""
    for name, linear in linears.items():
        delattr(natives, name)
        natives.register_parameter(f"{name}_proj", nn.Parameter(linear.weight, False))
    return natives
