"""Training, validation and test examples of each client."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comigs.errors import BadInput
from comigs.prepare.partitions import Part
from comigs.prepare.settings import FEWEST, Settings
from comigs.seeds import derive

Rows = NDArray[np.int64]
HELD_OUT = 10  # one example of so many is for validation, one for the test


@dataclass(frozen=True)
class Client:
    """One client's examples by split, by their numbers."""

    name: str
    splits: dict[str, Rows]

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


@dataclass(frozen=True)
class Unseen:
    """Examples of clients that do not train, for all others to validate and to be tested on."""

    names: tuple[str, ...]
    valid: Rows
    test: Rows


def set_apart(parts: Sequence[Part], settings: Settings) -> tuple[list[Part], Unseen | None]:
    """The parts that train, and with --held-out what the others are for.

    Raises:
        BadInput: nobody would be left to train.
    """
    if settings.held_out is None:
        return list(parts), None
    if settings.held_out >= len(parts):
        raise BadInput(
            f"--held-out is {settings.held_out}; there are {len(parts)} clients; some must train"
        )
    rng = np.random.default_rng(derive(settings.seed, "held out"))
    drawn = set(rng.permutation(len(parts))[: settings.held_out].tolist())
    apart = [part for i, part in enumerate(parts) if i in drawn]
    rows = rng.permutation(np.concatenate([part.rows for part in apart]))
    half = len(rows) // 2
    unseen = Unseen(tuple(part.name for part in apart), rows[:half], rows[half:])
    return [part for i, part in enumerate(parts) if i not in drawn], unseen


def split(part: Part, seed: int, unseen: Unseen | None = None) -> Client:
    """Shuffle, then cut: 80 % to train, 10 % each, but at least one, to validate and to test.

    With `unseen` examples all of its own are to train.
    """
    rng = np.random.default_rng(derive(seed, part.name, "splits"))
    rows = part.rows[rng.permutation(len(part.rows))]
    if unseen:
        return Client(part.name, {"train": rows, "valid": unseen.valid, "test": unseen.test})
    held = max(1, len(rows) // HELD_OUT)
    cuts = {"train": rows[: -2 * held], "valid": rows[-2 * held : -held], "test": rows[-held:]}
    return Client(part.name, cuts)
