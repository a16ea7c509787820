"""LoRA rank and scale of adapter tensors: read, cut, and convert between ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from comigs.config.experts import ExpertsConfig

if TYPE_CHECKING:
    from torch import Tensor


def lora_scale(experts: ExpertsConfig, rank: int) -> float:
    """The factor s of s B A in the forward pass: alpha / sqrt(r), or alpha / r."""
    return experts.alpha / (math.sqrt(rank) if experts.scaling == "rslora" else rank)


def pairs(names: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of every LoRA pair, (A, B), in alphabetical order."""
    for name in sorted(names):
        if ".lora_A." in name:
            yield name, name.replace(".lora_A.", ".lora_B.")


def rank_of(tensors: Mapping[str, Tensor]) -> int:
    """The rank of the first LoRA pair."""
    return tensors[next(pairs(tensors))[0]].shape[0]


def cut(
    tensors: Mapping[str, Tensor], rank: int, experts: ExpertsConfig | None = None
) -> dict[str, Tensor]:
    """Keep the first `rank` components of every LoRA pair; the others' sum is what is lost.

    Tensors that belong to no pair, and pairs of no higher rank, stay as they are.

    Args:
        experts: rescales B, so that s B A stays what it was on the components kept; None for
            optimiser moments, which are cut only.
    """
    kept = dict(tensors)
    for a, b in pairs(tensors):
        had = tensors[a].shape[0] if tensors[a].ndim else 0
        if had > rank:
            ratio = lora_scale(experts, had) / lora_scale(experts, rank) if experts else 1.0
            kept[a] = tensors[a][:rank].clone()
            if b in tensors:  # some moments are A's alone
                kept[b] = tensors[b][:, :rank] * ratio
    return kept
