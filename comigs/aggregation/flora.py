"""FLoRA: stack the clients' LoRA pairs, so that their product is the exact mean (arXiv 2409.05976).

Each round's stack is added to the frozen weights of every client, which then begins a new LoRA.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Arriving, Scale, Tensors, Updates
from comigs.aggregation.stacks import Stacks
from comigs.mixture.deltas import append
from comigs.mixture.ranks import pairs


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """The round's stack, and the sum of all rounds' for clients that were away."""
    out: dict[str, Tensor] = {}
    for a, b in sorted({pair for update in updates.values() for pair in pairs(update)}):
        out |= remember(a, stacked(a, b, updates, weights, scale), kept)
    return out


def stacked(
    a: str, b: str, updates: Updates, weights: Mapping[int, float], scale: Scale
) -> tuple[Tensor, Tensor]:
    """[A_1; ...; A_n] and [p_1 s_1 B_1, ..., p_n s_n B_n] over the clients that hold the pair."""
    holders = sorted(i for i, update in updates.items() if a in update)
    total = sum(weights[i] for i in holders)
    right = [updates[i][a] for i in holders]
    left = [updates[i][b] * (scale(updates[i][a].shape[0]) * weights[i] / total) for i in holders]
    return torch.cat(right), torch.cat(left, 1)


def remember(a: str, stack: tuple[Tensor, Tensor], kept: Tensors) -> dict[str, Tensor]:
    """The stack and the sum with what was `kept`, under the names of the pair of `a`."""
    stack_a, stack_b, delta_a, delta_b = (
        a.replace(".lora_A.", f".{kind}_{half}.") for kind in ("stack", "delta") for half in "AB"
    )
    earlier = (kept[delta_a], kept[delta_b]) if delta_a in kept else None
    total = append(earlier, stack)
    return {stack_a: stack[0], stack_b: stack[1], delta_a: total[0], delta_b: total[1]}


def is_stack(name: str) -> bool:
    return ".stack_" in name


def deliver(
    kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
) -> dict[str, Tensor]:
    """Pair by pair, the last round's stack to a client that took part in it, if there is one.

    To others, and where the last round has not renewed the pair, the sum of all rounds' stacks,
    which takes the place of what the client has.
    """
    out = {}
    for name, tensor in kept.items():
        kind = ".stack_" if is_stack(name) else ".delta_" if ".delta_" in name else ".lora_"
        stacked_now = fresh and name.replace(kind, ".stack_") in kept
        if name.replace(kind, ".lora_") in shapes and kind != (
            ".delta_" if stacked_now else ".stack_"
        ):
            out[name] = tensor
    return out


def arriving(name: str) -> Arriving:
    """Stacks and sums correct the weights under the LoRA pair of their name."""
    own = re.sub(r"\.(?:stack|delta)_([AB])\.", r".lora_\1.", name)
    return Arriving(own, own != name)


AGGREGATOR = Aggregator(
    combine,
    deliver,
    lambda name: not is_stack(name),
    mixed_ranks=True,
    sizes=Stacks,
    arriving=arriving,
)
