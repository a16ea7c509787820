"""How far local steps move A and B of the LoRA pairs: means over a round's expert steps.

Told as updates/A/size, updates/A/angle, and the same for B: over the rows of all tensors of that
kind the mean length of a step, and the mean angle in radians between a row before and after it. A
row that is 0 on either side has no angle: without any, none is told. So B has none in its first
step. Warmup-free training (arXiv 2410.23922) is about both.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from comigs.evaluation.metrics import OfSteps

KINDS = {".lora_A.": "A", ".lora_B.": "B"}
TINY = 1e-300


class Moved(NamedTuple):
    """Sums over rows and steps, in float64: lengths, how many, angles, how many."""

    size: Tensor
    rows: Tensor
    angle: Tensor
    angles: Tensor


class Updates:
    """Holds a copy of what a step moves, in the memory of the CPU, while it does so."""

    def __init__(self) -> None:
        self.start: dict[str, Tensor] = {}
        self.moves: dict[str, Moved] = {}

    def before(self, tensors: Mapping[str, Tensor]) -> None:
        of_pairs = {n: t.detach() for n, t in tensors.items() if kind_of(n)}
        self.start = {n: t.to("cpu", copy=True) for n, t in of_pairs.items()}

    def after(self, tensors: Mapping[str, Tensor]) -> None:
        for name, start in self.start.items():
            kind, move = kind_of(name), moved(start, tensors[name].detach().cpu())
            so_far = self.moves.get(kind)
            sums = (a + b for a, b in zip(so_far, move, strict=True)) if so_far else move
            self.moves[kind] = Moved(*sums)
        self.start = {}

    def told(self) -> dict[str, float]:
        means = {}
        for kind, move in sorted(self.moves.items()):
            means[f"{kind}/size"] = float(move.size / move.rows)
            if move.angles:
                means[f"{kind}/angle"] = float(move.angle / move.angles)
        return means


def kind_of(name: str) -> str:
    """A, B, or nothing of a tensor that is of no LoRA pair."""
    return next((kind for part, kind in KINDS.items() if part in name), "")


def moved(before: Tensor, after: Tensor) -> Moved:
    """What one step did to the rows of a tensor."""
    old, new = before.double(), after.double()
    lengths = old.norm(dim=-1)
    along = (old * new).sum(-1)
    across = new - old * (along / lengths.square().clamp(TINY)).unsqueeze(-1)
    there = (lengths > 0) & (new.norm(dim=-1) > 0)
    angles = torch.atan2(across.norm(dim=-1) * lengths, along)[there]
    rows = torch.ones_like(lengths).sum()
    return Moved((new - old).norm(dim=-1).sum(), rows, angles.sum(), there.sum())


METRIC = OfSteps(Updates)
