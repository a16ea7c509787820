"""Which rows of a batch belong to which voice, and how their tokens are grouped by it."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Seats:
    """The seats of T rows: m of n voices are there, of which the one with most rows has w.

    Attributes:
        present: the voices that are there, in order: m of 0 to n - 1.
    """

    def __init__(self, rows: Sequence[int], device: torch.device) -> None:
        """Give the voice of each row."""
        self.present = tuple(sorted(set(rows)))
        own = [[row for row, voice in enumerate(rows) if voice == each] for each in self.present]
        self._width = max(map(len, own))
        place = [row for some in own for row in (some + [some[0]] * self._width)[: self._width]]
        self._place: Tensor | None = None
        if place != list(range(len(rows))):
            self._place = torch.tensor(place, device=device)
            back = [place.index(row) for row in range(len(rows))]
            self._back = torch.tensor(back, device=device)

    def group(self, x: Tensor) -> Tensor:
        """T x L x d to m x (w L) x d; voices with fewer rows than w have one of them repeated."""
        x = x if self._place is None else x.index_select(0, self._place)
        return x.reshape(len(self.present), -1, x.shape[-1])

    def ungroup(self, x: Tensor, length: int) -> Tensor:
        """m x (w L) x d back to T x L x d."""
        x = x.reshape(-1, length, x.shape[-1])
        return x if self._place is None else x.index_select(0, self._back)
