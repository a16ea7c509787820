"""How much the choice of an expert tells of something else: who reads, of what, which token."""

import torch
from torch import Tensor

CLASSES = ("word", "rest of a word", "number", "mark")


def mutual_information(counts: Tensor) -> float:
    """I(A; B) in bits, from how often a of A was seen with b of B, A x B.

    From T tokens it is too high by about (A - 1)(B - 1) / (1.39 T).
    """
    joint = counts.double() / counts.sum()
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return float((joint[seen] * (joint[seen] / alone[seen]).log2()).sum().clamp(min=0))


def pair_counts(first: Tensor, second: Tensor, sizes: tuple[int, int]) -> Tensor:
    """How often each value of `first` (T) stands with each of `second` (T), A x B."""
    flat = torch.bincount(first * sizes[1] + second, minlength=sizes[0] * sizes[1])
    return flat.view(sizes)


def token_class(piece: str) -> int:
    """Of a token's text, a place in `CLASSES`: a word (from its space on), more of one, digits, or
    all else."""
    bare = piece.strip()
    if bare.isalpha():
        return 0 if piece[0].isspace() else 1
    return 2 if bare.isdigit() else 3
