"""The expert mixture of one MLP, computed over one shared frozen MLP (METHODS section 1).

Expert e is the whole MLP with its own LoRA on every linear. With u = W1 x shared by all experts,
z_e = u + s B1_e A1_e x and h_e = act(z_e),

    sum_e g_e MLP_e(x) = W2 (sum_e g_e h_e) + s sum_e B2_e A2_e (g_e h_e)

so each frozen weight is applied once. `mix` returns the two sums before W2 and B2. For the backward
pass it keeps only u and rank-sized tensors and recomputes each h_e: E experts need less activation
memory than one ordinary LoRA MLP.

The tensors of n clients in one pass (`comigs.mixture.fused`) have one more dimension in front, and
every product with an expert's own weights is batched over it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from comigs.backbone.arithmetic import multiply

Hidden = Callable[[Sequence[Tensor]], Tensor]
Drop = Callable[[Tensor], Tensor]


class Expert(NamedTuple):
    """One expert's part, for the T_e of T tokens that chose it."""

    low: Sequence[Tensor]  # per up-projection s A1 x, T_e x r
    up_b: Sequence[Tensor]  # per up-projection B1, F x r
    down_a: Tensor  # A2, r x F' (F' = F, or F / 2 where gate and up are fused)
    gate: Tensor | None  # T_e x 1, None for weight 1
    tokens: Tensor | None  # T_e indices into the T tokens, None for all of them


def mix(
    hidden: Hidden, up: Sequence[Tensor], experts: Sequence[Expert], drop: Drop | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Combine the experts before the down-projection.

    Args:
        hidden: maps the pre-activations (each T x F) to h (T x F').
        up: frozen up-projections of the input, each T x F.
        experts: the experts' parts.
        drop: LoRA dropout on the down-projection's input; then every h_e is kept for backward.

    Returns:
        sum_e g_e h_e (T x F') and per expert A2_e (g_e h_e) (T_e x r).
    """
    if drop is not None or not torch.is_grad_enabled():
        return _mix(hidden, up, experts, drop)
    flat = [t for e in experts for t in (*e.low, *e.up_b, e.down_a, e.gate)]
    total, *lows = _Recompute.apply(hidden, [e.tokens for e in experts], *up, *flat)
    return total, lows


def _mix(
    hidden: Hidden, up: Sequence[Tensor], experts: Sequence[Expert], drop: Drop | None
) -> tuple[Tensor, list[Tensor]]:
    total: Tensor | None = None
    lows = []
    for expert in experts:
        h, low = _terms(hidden, _rows(up, expert.tokens), expert, drop)
        total = _add_rows(total, h, expert.tokens, up[0].shape[0])
        lows.append(low)
    assert total is not None
    return total, lows


def _terms(
    hidden: Hidden, rows: Sequence[Tensor], expert: Expert, drop: Drop | None = None
) -> tuple[Tensor, Tensor]:
    """Return g_e h_e (T_e x F') and A2_e (g_e h_e) (T_e x r)."""
    parts = zip(rows, expert.low, expert.up_b, strict=True)
    h = hidden([_add_product(u, low, b.mT) for u, low, b in parts])
    if expert.gate is not None:
        h = h * expert.gate if torch.is_grad_enabled() else h.mul_(expert.gate)
    return h, product(h if drop is None else drop(h), expert.down_a.mT)


def linear(x: Tensor, w: Tensor, total: Tensor | None = None) -> Tensor:
    """x w^T for a small w, plus `total` if given; of matrices, or of n of each."""
    out: Tensor = _Linear.apply(x, w, total)
    return out


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b where one side is a rank; a tall result is made lying, as b^T a^T.

    A CPU's BLAS takes up to nine times as long for a result of few columns.
    """
    lying = b.shape[-1] < a.shape[-2]
    return _times(b.mT, a.mT).mT if lying else _times(a, b)


def _times(a: Tensor, b: Tensor) -> Tensor:
    return multiply(torch.matmul, a, b)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return multiply(torch.addmm if a.ndim == 2 else torch.baddbmm, total, a, b)


def _rows(tensors: Sequence[Tensor], tokens: Tensor | None) -> list[Tensor]:
    return list(tensors) if tokens is None else [t.index_select(0, tokens) for t in tensors]


def _add_rows(total: Tensor | None, part: Tensor, tokens: Tensor | None, size: int) -> Tensor:
    if tokens is None:
        if total is None:
            return part
        return total + part if torch.is_grad_enabled() else total.add_(part)
    if total is None:
        total = part.new_zeros(size, part.shape[1])
    return total.index_add(0, tokens, part)


def whole(part: Tensor, tokens: Tensor | None, size: int) -> Tensor:
    """Rows of some of `size` tokens among those of all, which are 0."""
    if tokens is None:
        return part
    return part.new_zeros(size, part.shape[1]).index_add(0, tokens, part)


class _Linear(torch.autograd.Function):
    """`linear`, whose gradients are `product`s too, alike for one matrix and for n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, total: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return _times(x, w.mT) if total is None else _add_product(total, x, w.mT)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        need_x, need_w, need_total = ctx.needs_input_grad
        return (
            product(g, w) if need_x else None,
            product(g.mT, x) if need_w else None,
            g if need_total else None,
        )


class _Recompute(torch.autograd.Function):
    """`_mix` without dropout; its backward runs each expert again instead of keeping it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Hidden, tokens: list[Tensor | None], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.hidden, ctx.tokens = hidden, tokens
        up, experts = _unflatten(tensors, tokens)
        total, lows = _mix(hidden, up, experts, None)
        return total, *lows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_total, d_lows = grads[0], grads[1:]
        up, experts = _unflatten(ctx.saved_tensors, ctx.tokens)
        up_needs, needs = _unflatten(ctx.needs_input_grad[2:], ctx.tokens)
        d_up: list[Tensor | None] = [None] * len(up)
        d_experts: list[Tensor | None] = []
        for expert, need, d_low in zip(experts, needs, d_lows, strict=True):
            d_h = _rows([d_total], expert.tokens)[0]
            d_z, d_expert = _expert_gradients(ctx.hidden, up, expert, need, d_h, d_low)
            for i, d in enumerate(d_z):
                if up_needs[i]:
                    d_up[i] = _accumulate(d_up[i], d, expert.tokens, len(up[i]))
            d_experts += d_expert
        return None, None, *d_up, *d_experts


def _expert_gradients(
    hidden: Hidden, up: Sequence[Tensor], expert: Expert, need: Expert, d_gh: Tensor, d_low: Tensor
) -> tuple[Sequence[Tensor], list[Tensor | None]]:
    """Gradients of one expert: of its pre-activations, and in the order of `Expert`'s tensors.

    Args:
        need: in the place of each tensor, whether its gradient is wanted.
        d_gh: gradient of sum_e g_e h_e at the expert's tokens, T_e x F'.
        d_low: gradient of A2_e (g_e h_e), T_e x r.
    """
    gate = expert.gate
    parts = zip(_rows(up, expert.tokens), expert.low, expert.up_b, strict=True)
    z = [_add_product(u, low, b.mT).requires_grad_() for u, low, b in parts]
    with torch.enable_grad():
        h = hidden(z)
    d_gh = _add_product(d_gh, d_low, expert.down_a)
    h_now = h.detach()
    d_gate = (d_gh * h_now).sum(-1, keepdim=True) if need.gate else None
    d_z = torch.autograd.grad(h, z, d_gh if gate is None else d_gh.mul_(gate))
    gated_low = d_low if gate is None else d_low * gate
    d_low_in = [
        product(d, b) if wanted else None
        for d, b, wanted in zip(d_z, expert.up_b, need.low, strict=True)
    ]
    d_up_b = [
        product(d.mT, low) if wanted else None
        for d, low, wanted in zip(d_z, expert.low, need.up_b, strict=True)
    ]
    d_down_a = product(gated_low.mT, h_now) if need.down_a else None
    return d_z, [*d_low_in, *d_up_b, d_down_a, d_gate]


def _accumulate(total: Tensor | None, part: Tensor, tokens: Tensor | None, size: int) -> Tensor:
    if tokens is None:
        return part if total is None else total.add_(part)
    if total is None:
        total = part.new_zeros(size, part.shape[1])
    return total.index_add_(0, tokens, part)


def _unflatten(
    tensors: Sequence[Any], tokens: Sequence[Tensor | None]
) -> tuple[list[Any], list[Expert]]:
    n = _projections(len(tensors), len(tokens))
    up, flat = list(tensors[:n]), tensors[n:]
    size = 2 * n + 2
    groups = [flat[i : i + size] for i in range(0, len(flat), size)]
    return up, [
        Expert(g[:n], g[n : 2 * n], g[-2], g[-1], t) for g, t in zip(groups, tokens, strict=True)
    ]


def _projections(count: int, experts: int) -> int:
    """Solve count = n + experts (2 n + 2) for n, the number of up-projections."""
    return (count - 2 * experts) // (2 * experts + 1)
