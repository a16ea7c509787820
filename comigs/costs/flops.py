"""Floating-point operations of matrix products, as `torch.utils.flop_counter` counts them.

A product of n x k and k x m counts 2 n k m. Attention counts every pair of positions, masked or
not. Backward follows what really runs: only tensors that something below them needs get a gradient,
and the experts' pre-activations are computed again (`comigs.mixture.algebra`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from comigs.costs.shapes import Layer, Linear, Skeleton

Learns = Callable[[str], bool]


@dataclass(frozen=True)
class Pass:
    """A forward pass, with or without backward, of one mixture.

    Attributes:
        experts: names of the experts that run; the attention LoRA is `attention`'s, if any.
        slots: experts that one token goes through.
        rank: of every LoRA.
        router: weights that a layer's router is made with; None where none runs.
        seq_len: tokens per sequence.
        recomputes: whether backward computes the experts' pre-activations again.
        checkpoints: whether backward runs each layer again.
    """

    base: Skeleton
    experts: Sequence[str]
    attention: str | None
    slots: int
    rank: int
    router: Callable[[Layer], int] | None
    seq_len: int
    recomputes: bool = True
    checkpoints: bool = False

    def forward(self) -> float:
        """FLOPs per token of a forward pass."""
        layers = sum(self._attend(layer) + self._mix(layer) for layer in self.base.layers)
        return layers + 2 * self.base.width * self.base.vocabulary + self.base.rest

    def backward(self, learns: Learns, held: Learns | None = None) -> float:
        """FLOPs per token of a backward pass to the tensors that `learns` names.

        Args:
            held: tensors that require grad, where they are more than those asked for: the LoRAs
                then compute their gradients too.
        """
        total, flows = 0.0, False  # whether the layer's input needs a gradient
        for layer in self.base.layers:
            cost, after = self._attend_back(layer, learns, held or learns, flows)
            total += cost
            cost, flows = self._mix_back(layer, learns, held or learns, after, flows)
            total += cost
            if self.checkpoints and flows:
                total += self._attend(layer) + self._mix(layer)
        return total + (2 * self.base.width * self.base.vocabulary if flows else 0)

    def _attend(self, layer: Layer) -> float:
        low = 2 * self.rank if self.attention else 0
        carriers = layer.attention if layer.out is None else (*layer.attention, layer.out)
        linears = sum(_product(x) + low * (x.inputs + x.outputs) for x in carriers)
        return linears + 2 * self._scores(layer) + self._scan(layer)[0] + layer.rest

    def _scores(self, layer: Layer) -> float:
        """One of the two products of attention: all heads, one query, every key."""
        return 2 * self.seq_len * layer.heads

    def _scan(self, layer: Layer) -> tuple[float, float]:
        """What mixes tokens without softmax attention, forward and backward."""
        return (0.0, 0.0) if layer.mixer is None else scan_flops(layer.mixer, self.seq_len)

    def _attend_back(
        self, layer: Layer, learns: Learns, held: Learns, flows: bool
    ) -> tuple[float, bool]:
        """Return the FLOPs, and whether the attention's output needs a gradient."""
        costs = [self._lora_back(linear, learns, held, flows) for linear in layer.attention]
        inside = flows or any(needs for _, needs in costs)
        cost, needs = 0.0, inside
        if layer.out is not None:
            cost, needs = self._lora_back(layer.out, learns, held, inside)
        products: float = (4 if self.base.eager else 5) * self._scores(layer)
        if layer.up:  # or both come behind the mixture
            products += self._scan(layer)[1]
            cost += layer.rest * needs
        cost += products * inside
        return sum(c for c, _ in costs) + cost, needs

    def _lora_back(
        self, linear: Linear, learns: Learns, held: Learns, flows: bool
    ) -> tuple[float, bool]:
        if self.attention is None:
            return flows * _product(linear), flows
        a_name, b_name = (f"{linear.name}.lora_{half}.{self.attention}.weight" for half in "AB")
        a, b, low = learns(a_name), learns(b_name), 2 * self.rank
        needs = flows or a or b
        kept_a, kept_b = (needs and held(name) for name in (a_name, b_name))
        cost = (kept_a + flows) * low * linear.inputs
        cost += (kept_b + (flows or kept_a)) * low * linear.outputs
        return cost + flows * _product(linear), needs

    def _mix(self, layer: Layer) -> float:
        if not layer.up:
            low = 2 * self.rank * len(self.experts) * (layer.down.inputs + layer.down.outputs)
            return _product(layer.down) + low + self._route(layer)
        low_in, low_out, slot_up, slot_down = self._low_rank(layer)
        frozen = sum(_product(up) for up in layer.up) + _product(layer.down)
        return layer.ways * frozen + low_in + low_out + slot_up + slot_down + self._route(layer)

    def _low_rank(self, layer: Layer) -> tuple[float, float, float, float]:
        """The low-rank products: A1 x and B2 of all experts, B1 and A2 of the chosen ones."""
        everyone = 2 * self.rank * len(self.experts)
        chosen = 2 * self.rank * self.slots * layer.ways
        return (
            everyone * sum(up.inputs for up in layer.up),
            everyone * layer.down.outputs,
            chosen * sum(up.outputs for up in layer.up),
            chosen * layer.down.inputs,
        )

    def _route(self, layer: Layer) -> float:
        return 2 * self.router(layer) if self.router else 0

    def _mix_back(
        self, layer: Layer, learns: Learns, held: Learns, after: bool, before: bool
    ) -> tuple[float, bool]:
        """Return the FLOPs, and whether the layer's output needs a gradient."""

        if not layer.up:
            return self._linear_back(layer, learns, held, after)

        def share_of(asked: Learns, half: str, *linears: Linear) -> float:
            """Of the experts, those with such a tensor."""
            have = [
                any(asked(f"{x.name}.lora_{half}.{expert}.weight") for x in linears)
                for expert in self.experts
            ]
            return sum(have) / len(have)

        def any_of(asked: Learns, half: str, *linears: Linear) -> bool:
            return share_of(asked, half, *linears) > 0

        flows = before if self.base.parallel else after  # whether the MLP's input needs one
        up_a, up_b = any_of(learns, "A", *layer.up), any_of(learns, "B", *layer.up)
        down_a, down_b = any_of(learns, "A", layer.down), any_of(learns, "B", layer.down)
        router = self.router is not None and learns(f"{layer.router}.weight")
        low_in, low_out, slot_up, slot_down = self._low_rank(layer)
        inside = flows or up_a or up_b or router
        cost = router * self._route(layer)
        if inside or down_a or down_b:
            cost += any_of(held, "B", layer.down) * low_out + any_of(held, "A", *layer.up) * low_in
        if inside or down_a:
            again = slot_up if self.recomputes else 0.0
            cost += layer.ways * _product(layer.down) + low_out + again + slot_down
            cost += (flows or any_of(held, "A", *layer.up)) * slot_up
            cost += share_of(held, "B", *layer.up) * slot_up
            cost += share_of(held, "A", layer.down) * slot_down
        if flows:
            ups = sum(_product(up) for up in layer.up)
            cost += layer.ways * ups + low_in + self._route(layer)
        return cost, after or inside or down_a or down_b

    def _linear_back(
        self, layer: Layer, learns: Learns, held: Learns, flows: bool
    ) -> tuple[float, bool]:
        """`_mix_back` of a mixture on one linear, whose LoRAs all run on every token."""

        def any_of(asked: Learns, half: str) -> bool:
            names = (f"{layer.down.name}.lora_{half}.{e}.weight" for e in self.experts)
            return any(map(asked, names))

        low = 2 * self.rank * len(self.experts)
        router = self.router is not None and learns(f"{layer.router}.weight")
        inside = flows or router or any_of(learns, "A")
        if not inside and not any_of(learns, "B"):
            return 0.0, False
        cost: float = low * layer.down.outputs * (any_of(held, "B") + inside)
        cost += low * layer.down.inputs * (any_of(held, "A") + flows)
        cost += self._route(layer) * (router + flows)
        return cost + flows * _product(layer.down) + layer.rest + self._scan(layer)[1], True


@lru_cache(maxsize=256)
def scan_flops(mixer: Any, seq_len: int) -> tuple[float, float]:
    """FLOPs per token of a frozen mixer on the `meta` device, forward and backward.

    Those of products with its weights are not in it.
    """
    hidden = torch.empty(1, seq_len, mixer.hidden_size, device="meta", requires_grad=True)
    weights = sum(2.0 * m.weight.numel() for m in mixer.modules() if isinstance(m, nn.Linear))
    with FlopCounterMode(display=False) as counter:
        out = mixer(hidden).sum()
        forward = counter.get_total_flops() / seq_len
        out.backward()
    backward = counter.get_total_flops() / seq_len - forward
    return forward - weights, backward - weights


def _product(linear: Linear) -> float:
    return 2 * linear.inputs * linear.outputs
