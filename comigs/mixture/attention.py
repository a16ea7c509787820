"""LoRA on linears outside the MLPs (attention), in one pass over the output; and mixtures of it.

PEFT takes three. With y = W x of the frozen linear, y + B (s A x): s goes into A, which is small,
and the sum into the product with B. A mixture of experts W + s B_e A_e on one linear is
(sum_e g_e) W x + sum_e B_e g_e (s A_e x).
"""

from collections.abc import Iterable
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from comigs.mixture.algebra import linear
from comigs.mixture.deltas import deltas_of
from comigs.mixture.gates import Gates


class AttentionLora(Linear):
    """PEFT's LoRA layer with the forward pass of `add_lora`, or of `add_mixture`.

    Attributes:
        gates: of a mixture of experts on this linear; (): it carries the first expert's LoRA. In a
            tuple, since they are part of the module around it: PEFT saves all that a layer holds.
    """

    gates: tuple[Gates, ...] = ()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map ... x in to ... x out."""
        if self.disable_adapters or kwargs:
            return super().forward(x, *args, **kwargs)
        if self.gates:
            return add_mixture(self, self.gates[0], x, self.base_layer(x))
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


def add_mixture(layer: Any, gates: Gates, x: Tensor, frozen: Tensor) -> Tensor:
    """Make the mixture of the experts on `layer` of `frozen`; the arguments are `add_lora`'s."""
    shape, dtype = frozen.shape, frozen.dtype
    x, y = (t.reshape(*gates.clients, -1, t.shape[-1]) for t in (x, frozen))
    gates.routing = None
    names, weights = gates.every_gate(x, dtype)
    lows = [
        linear(layer.lora_dropout[name](x), lora_a(layer, name, dtype, layer.scaling[name]))
        for name in names
    ]
    if weights is not None:
        lows = [low * gate for low, gate in zip(lows, weights.split(1, -1), strict=True)]
        if not gates.sums_to_one:
            y = y * weights.sum(-1, keepdim=True)
    b = [lora_b(layer, name, dtype) for name in names]
    return linear(torch.cat(lows, -1), torch.cat(b, -1), y).view(shape)


def lora_a(layer: Any, name: str, dtype: torch.dtype, scale: float = 1) -> Tensor:
    """scale A of one expert's LoRA on `layer`, above the A of its frozen correction, if any."""
    weight: Tensor = layer.lora_A[name].weight.to(dtype)
    weight = weight * scale if scale != 1 else weight
    delta = deltas_of(layer).get(name)
    return weight if delta is None else torch.cat([weight, delta[0].to(dtype)], -2)


def lora_b(layer: Any, name: str, dtype: torch.dtype, scale: float = 1) -> Tensor:
    """scale B of one expert's LoRA on `layer`, beside the B of its frozen correction, if any."""
    weight: Tensor = layer.lora_B[name].weight.to(dtype)
    weight = weight * scale if scale != 1 else weight
    delta = deltas_of(layer).get(name)
    return weight if delta is None else torch.cat([weight, delta[1].to(dtype)], -1)


def drops(drop: nn.Module) -> bool:
    """Whether LoRA dropout is on."""
    return isinstance(drop, nn.Dropout) and drop.training


def low_rank(x: Tensor, ups: list[Any], names: list[str]) -> list[list[Tensor]]:
    """Return s A x (T x r) per expert and linear of `ups`, all in one product."""
    pairs = [(up, name) for name in names for up in ups]
    weights = [lora_a(up, name, x.dtype, up.scaling[name]) for up, name in pairs]
    if any(drops(up.lora_dropout[name]) for up, name in pairs):
        dropped = [up.lora_dropout[name](x) for up, name in pairs]
        flat = [linear(xi, w) for xi, w in zip(dropped, weights, strict=True)]
    else:
        flat = list(linear(x, torch.cat(weights, -2)).split([w.shape[-2] for w in weights], -1))
    return [flat[i : i + len(ups)] for i in range(0, len(flat), len(ups))]
