"""LoRA on linears outside the mixture (attention), in one pass over the output.

PEFT takes three. With y = W x of the frozen linear, y + B (s A x): s goes into A, which is small,
and the sum into the product with B.
"""

from collections.abc import Iterable
from typing import Any

from peft.tuners.lora import Linear
from torch import Tensor

from comigs.mixture.algebra import linear
from comigs.mixture.deltas import deltas_of


class AttentionLora(Linear):
    """PEFT's LoRA layer with the forward pass of `add_lora`."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map ... x in to ... x out."""
        if self.disable_adapters or kwargs:
            return super().forward(x, *args, **kwargs)
        active = [] if self.merged else [n for n in self.active_adapters if n in self.lora_A]
        return add_lora(self, active, x, self.base_layer(x))


def add_lora(
    layer: Any, names: Iterable[str], x: Tensor, frozen: Tensor, clients: tuple[int, ...] = ()
) -> Tensor:
    """Add LoRA of `layer`, in fp32 as PEFT does it, and its corrections to `frozen`.

    Args:
        layer: a PEFT LoRA layer, or that of n clients (`comigs.mixture.fused`).
        names: the experts whose LoRA is added.
        x, frozen: input and output of the frozen linear, ... x in and ... x out.
        clients: (n,) where n clients share the pass.
    """
    shape, dtype = frozen.shape, frozen.dtype
    x, y = (t.reshape(*clients, -1, t.shape[-1]) for t in (x, frozen))
    for name in names:
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        low = linear(layer.lora_dropout[name](x.to(a.dtype)), a * layer.scaling[name])
        y = linear(low, b, y.to(low.dtype))
    y = y.to(dtype)
    for a, b in deltas_of(layer).values():
        y = linear(linear(x, a.to(dtype)), b.to(dtype), y)
    return y.view(shape)
