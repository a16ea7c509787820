"""Top-k routing of tokens, or of prefixes of text, and its balance loss (METHODS section 1).

Every function also takes n clients at once, whose tensors have one more dimension in front.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Routing(NamedTuple):
    """How T tokens of one layer were routed to k of E experts."""

    logits: Tensor  # T x E, fp32
    chosen: Tensor  # T x k, indices of the chosen experts
    gates: Tensor  # T x k, their weights


def route(logits: Tensor, top_k: int) -> Routing:
    """Pick the `top_k` largest logits of each token.

    k > 1: softmax over the chosen logits. k = 1: the largest entry of the softmax over all E, so
    that the router still has a gradient.

    Args:
        logits: T x E.
        top_k: 1..E.
    """
    if top_k == logits.shape[-1]:
        everyone = torch.arange(top_k, device=logits.device).expand_as(logits)
        return Routing(logits, everyone, logits.softmax(-1))
    values, chosen = logits.topk(top_k, dim=-1)
    gates = values.softmax(-1) if top_k > 1 else logits.softmax(-1).gather(-1, chosen)
    return Routing(logits, chosen, gates)


def prefix_means(logits: Tensor, length: int, positions: Tensor | None) -> Tensor:
    """Of each token the mean logits of its example's tokens up to it, so that none sees ahead.

    Args:
        logits: ... x T x E, of rows of `length` tokens, one row behind another.
        positions: of each token in its example, rows x length; None: each row is one example.
    """
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    rows = logits.reshape(-1, length, logits.shape[-1])
    sums = rows.cumsum(1, dtype=exact)
    if positions is None:
        counts = torch.arange(1, length + 1, device=logits.device).unsqueeze(-1)
    else:
        places = torch.arange(length, device=logits.device)
        begins = (places - positions).clamp(min=0).expand(len(rows), -1).unsqueeze(-1)
        counts = places.unsqueeze(-1) + 1 - begins
        sums = sums - F.pad(sums, (0, 0, 1, 0)).gather(1, begins.expand_as(sums))
    return (sums / counts).to(logits.dtype).view(logits.shape)


def of_tokens(routing: Routing, real: Tensor | None) -> Routing:
    """One client's routing of those tokens that `real` (T) keeps; None: of all."""
    if real is None:
        return routing
    logits, chosen, gates = (each[real.to(each.device)] for each in routing)
    return Routing(logits, chosen, gates)


def slot_counts(routing: Routing, real: Tensor | None = None) -> Tensor:
    """Number of routing slots that chose each expert, E (T k in all, or k for each real token).

    Args:
        real: which of the T tokens count; None: all.
    """
    slots = routing.chosen.flatten(-2)
    counts = slots.new_zeros(*slots.shape[:-1], routing.logits.shape[-1])
    ones = torch.ones_like(slots)
    if real is not None:
        ones = real.to(slots).repeat_interleave(routing.chosen.shape[-1], -1)
    return counts.scatter_add_(-1, slots, ones)


def balance_loss(
    routing: Routing,
    importance: float,
    counts: Tensor | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """E^2 mean_e(d_e p_e c_e) of one layer, a scalar.

    d_e is the share of slots that chose e; p_e the token mean of the softmax of the logits whose
    unselected entries are set to 0 (k = 1: of the gate where e was chosen, else 0);
    c_0 = 1 / (E importance), c_e = (E - 1) / (E (1 - importance)).

    Args:
        routing: the layer's routing.
        importance: iota, the share of the load that the first expert should carry.
        counts: slot counts of the whole batch when `routing` is one micro-batch of it.
        real: which of the T tokens count; None: all.
    """
    n_experts = routing.logits.shape[-1]
    if counts is None:
        counts = slot_counts(routing, real)
    share = counts / counts.sum(-1, keepdim=True)
    if routing.chosen.shape[-1] > 1:
        kept = torch.zeros_like(routing.logits).scatter(
            -1, routing.chosen, routing.logits.gather(-1, routing.chosen)
        )
        p = _token_mean(kept.softmax(-1), real)
    else:
        zeros = torch.zeros_like(routing.logits)
        p = _token_mean(zeros.scatter(-1, routing.chosen, routing.gates), real)
    c = p.new_full((n_experts,), (n_experts - 1) / (n_experts * (1 - importance)))
    c[0] = 1 / (n_experts * importance)
    return n_experts**2 * (share * p * c).mean(-1)


def _token_mean(values: Tensor, real: Tensor | None) -> Tensor:
    """Mean over the tokens that count: ... x T x E to ... x E."""
    if real is None:
        return values.mean(-2)
    weights = real.to(values).unsqueeze(-1)
    return (values * weights).sum(-2) / weights.sum(-2)
