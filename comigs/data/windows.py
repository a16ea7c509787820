"""What a window says of its tokens: which are predicted, where an example begins, what is filling.

A window is n x L+1, int64. Each entry is a token t and, by its sign and size, what t is for:

    t                   read, and predicted from what stands before it; the first of a row is not
    -1 - t              read only
    -1 - t - BEGINS     read only; the first of an example, which sees nothing before it
    FILLING             nothing: behind the last example of a row

So marks go wherever tokens go: through random draws, micro-batches and clients in one pass. Windows
of plain text have no marks.
"""

from bisect import bisect_left, insort
from typing import NamedTuple

import torch
from torch import Tensor

BEGINS = 1 << 32
FILLING = -1 - (2 << 32)
IGNORED = -100  # the target of what is not predicted, as torch and Transformers have it


class Batch(NamedTuple):
    """Windows as a model takes them.

    Attributes:
        ids: what is read, n x L.
        targets: what follows each of them, n x L; `IGNORED` where it is not predicted.
        positions: in its example, n x L: where they begin again, attention does, too (Transformers'
            packed sequences). None for plain text.
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor | None


def read_marks(windows: Tensor) -> Batch:
    """Take windows (n x L+1, on the CPU) apart."""
    inputs, targets = windows[:, :-1], windows[:, 1:]
    if not is_marked(windows):
        return Batch(inputs, targets, None)
    meant = -1 - inputs
    places = torch.arange(inputs.shape[1]).expand_as(inputs)
    starts = torch.where(_begins(inputs), places, 0).cummax(1).values
    ids = torch.where(inputs < 0, meant & (BEGINS - 1), inputs)
    return Batch(ids, targets.where(targets >= 0, IGNORED), places - starts)


def is_marked(windows: Tensor) -> bool:
    """Whether windows are of examples: every row of theirs begins with one, none of plain text."""
    return bool(windows[..., 0].lt(0).any())


def predicted(windows: Tensor) -> Tensor:
    """How many tokens of windows (... x n x L+1) are predicted (...)."""
    return windows[..., 1:].ge(0).sum((-2, -1))


def real(windows: Tensor) -> Tensor | None:
    """Which of the tokens that are read are no filling, ... x n L for ... x n x L+1; None: all."""
    kept = windows[..., :-1] != FILLING
    return None if kept.all() else kept.flatten(-2)


def marked(tokens: Tensor, learnt: Tensor) -> Tensor:
    """One example as part of a row (T): its first token, then those that are predicted or not."""
    row = torch.where(learnt, tokens, -1 - tokens)
    row[:1] = -1 - tokens[:1] - BEGINS
    return row


def packed(examples: list[Tensor], length: int, several: bool = True) -> Tensor:
    """Rows of `length` entries, each of whole examples, filled up at their ends: n x length.

    An example goes where the least room is left that it fits in.

    Args:
        examples: as `marked` makes them, none longer than `length`.
        several: whether a row may hold more than one.
    """
    rows: list[list[Tensor]] = []
    rooms: list[tuple[int, int]] = []  # what is left of each row, in order, and its number
    for example in examples:
        place = bisect_left(rooms, (len(example), 0))
        if several and place < len(rooms):
            room, number = rooms.pop(place)
        else:
            room, number = length, len(rows)
            rows.append([])
        rows[number].append(example)
        insort(rooms, (room - len(example), number))
    whole = torch.full((len(rows), length), FILLING)
    for row, parts in zip(whole, rows, strict=True):
        joined = torch.cat(parts)
        row[: len(joined)] = joined
    return whole


def _begins(windows: Tensor) -> Tensor:
    return (windows < -BEGINS) & (windows != FILLING)
