"""Floating-point operations of matrix products, as `torch.utils.flop_counter` counts them.

A product of n x k and k x m counts 2 n k m. Attention counts every pair of positions, masked or
not. Backward follows what really runs: only tensors that something below them needs get a gradient,
and the experts' pre-activations are computed again (`comigs.mixture.algebra`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comigs.costs.shapes import Layer, Linear, Skeleton

Learns = Callable[[str], bool]


@dataclass(frozen=True)
class Pass:
    """A forward pass, with or without backward, of one mixture.

    Attributes:
        experts: names of the experts that run; the attention LoRA is `attention`'s, if any.
        slots: experts that one token goes through.
        rank: of every LoRA.
        router: weights of a router, by the width of its input; None where none runs.
        seq_len: tokens per sequence.
        recomputes: whether backward computes the experts' pre-activations again.
        checkpoints: whether backward runs each layer again.
    """

    base: Skeleton
    experts: Sequence[str]
    attention: str | None
    slots: int
    rank: int
    router: Callable[[int], int] | None
    seq_len: int
    recomputes: bool = True
    checkpoints: bool = False

    def forward(self) -> float:
        """FLOPs per token of a forward pass."""
        layers = sum(self._attend(layer) + self._mix(layer) for layer in self.base.layers)
        return layers + 2 * self.base.width * self.base.vocabulary

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
        linears = sum(_product(x) + low * (x.inputs + x.outputs) for x in layer.attention)
        return linears + 2 * self._scores(layer)

    def _scores(self, layer: Layer) -> float:
        """One of the two products of attention: all heads, one query, every key."""
        return 2 * self.seq_len * layer.attention[-1].inputs

    def _attend_back(
        self, layer: Layer, learns: Learns, held: Learns, flows: bool
    ) -> tuple[float, bool]:
        """Return the FLOPs, and whether the attention's output needs a gradient."""
        *inner, out = layer.attention
        costs = [self._lora_back(linear, learns, held, flows) for linear in inner]
        inside = any(needs for _, needs in costs)
        cost, needs = self._lora_back(out, learns, held, inside)
        products = (4 if self.base.eager else 5) * self._scores(layer) if inside else 0
        return sum(c for c, _ in costs) + cost + products, needs

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
        low_in, low_out, slot_up, slot_down = self._low_rank(layer)
        frozen = sum(_product(up) for up in layer.up) + _product(layer.down)
        return frozen + low_in + low_out + slot_up + slot_down + self._route(layer)

    def _low_rank(self, layer: Layer) -> tuple[float, float, float, float]:
        """The low-rank products: A1 x and B2 of all experts, B1 and A2 of the chosen ones."""
        everyone, chosen = 2 * self.rank * len(self.experts), 2 * self.rank * self.slots
        return (
            everyone * sum(up.inputs for up in layer.up),
            everyone * layer.down.outputs,
            chosen * sum(up.outputs for up in layer.up),
            chosen * layer.down.inputs,
        )

    def _route(self, layer: Layer) -> float:
        return 2 * self.router(layer.up[0].inputs) if self.router else 0

    def _mix_back(
        self, layer: Layer, learns: Learns, held: Learns, after: bool, before: bool
    ) -> tuple[float, bool]:
        """Return the FLOPs, and whether the layer's output needs a gradient."""

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
        router = self.router is not None and learns(f"{layer.mlp}.router.weight")
        low_in, low_out, slot_up, slot_down = self._low_rank(layer)
        inside = flows or up_a or up_b or router
        cost = router * self._route(layer)
        if inside or down_a or down_b:
            cost += any_of(held, "B", layer.down) * low_out + any_of(held, "A", *layer.up) * low_in
        if inside or down_a:
            again = slot_up if self.recomputes else 0.0
            cost += _product(layer.down) + low_out + again + slot_down
            cost += (flows or any_of(held, "A", *layer.up)) * slot_up
            cost += share_of(held, "B", *layer.up) * slot_up
            cost += share_of(held, "A", layer.down) * slot_down
        if flows:
            cost += sum(_product(up) for up in layer.up) + low_in + self._route(layer)
        return cost, after or inside or down_a or down_b


def _product(linear: Linear) -> float:
    return 2 * linear.inputs * linear.outputs
