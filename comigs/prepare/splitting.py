"""Training, validation and test examples of each client."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comigs.errors import BadInput
from comigs.prepare.partitions import Part
from comigs.prepare.settings import FEWEST, Settings
from comigs.seeds import derive

HELD_OUT = 10  # one example of so many is for validation, one for the test


@dataclass(frozen=True)
class Client:
    """One client's examples by split, by their numbers."""

    name: str
    splits: dict[str, NDArray[np.int64]]

    @property
    def examples(self) -> dict[str, int]:
        """How many there are of each split."""
        return {split: len(rows) for split, rows in self.splits.items()}


def large_enough(parts: Sequence[Part], settings: Settings) -> list[Part]:
    """The parts that can be split; smaller ones are left out where --min-examples says so.

    Raises:
        BadInput: a part is too small, or all of them are.
    """
    least = FEWEST if settings.min_examples is None else settings.min_examples
    small = [part for part in parts if len(part.rows) < least]
    if small and settings.min_examples is None:
        more = f" ({len(small) - 1} more are as small)" if len(small) > 1 else ""
        raise BadInput(
            f"client {small[0].name!r} has {len(small[0].rows)} examples; three splits need "
            f"{FEWEST}{more}: --min-examples {FEWEST} leaves such clients out"
        )
    if len(small) == len(parts):
        most = max(len(part.rows) for part in parts)
        raise BadInput(f"--min-examples is {least}; no client has so many, the largest has {most}")
    return [part for part in parts if len(part.rows) >= least]


def split(part: Part, seed: int) -> Client:
    """Shuffle, then cut: 80 % to train, 10 % each, but at least one, to validate and to test."""
    rng = np.random.default_rng(derive(seed, part.name, "splits"))
    count = len(part.rows)
    held = max(1, count // HELD_OUT)
    order = rng.permutation(count)
    cuts = {"train": order[: -2 * held], "valid": order[-2 * held : -held], "test": order[-held:]}
    return Client(part.name, {name: part.rows[places] for name, places in cuts.items()})
