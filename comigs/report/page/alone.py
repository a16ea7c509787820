"""What training alone gives: the run that others are measured against, and who gained on it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from comigs.errors import BadInput
from comigs.report.cells import ALONE
from comigs.report.page.run import Run, load_run

SAME = ("model", "data", "experts", "train", "rounds", "local_steps", "batch_size", "seed")
CALLED = re.compile(rf"^method: ['\"]?({'|'.join(ALONE)})['\"]?$", re.MULTILINE)
MOST = 50  # runs beside one that are looked into


@dataclass(frozen=True)
class Versus:
    """The clients of a run against what they have elsewhere, by their test perplexity.

    Attributes:
        what: what they are measured against.
        better, worse: names.
        mean, other: over the clients that both have.
    """

    what: str
    better: Sequence[str]
    worse: Sequence[str]
    mean: float
    other: float

    @property
    def clients(self) -> int:
        return len(self.better) + len(self.worse)


def versus(what: str, rows: Sequence[dict[str, Any]], others: dict[str, float]) -> Versus | None:
    """Compare each row's `after` with the number of its name; None where there are none."""
    both = [row for row in rows if row["name"] in others]
    if not both:
        return None
    better = [row["name"] for row in both if row["after"] < others[row["name"]]]
    return Versus(
        what,
        better,
        [row["name"] for row in both if row["name"] not in better],
        sum(row["after"] for row in both) / len(both),
        sum(others[row["name"]] for row in both) / len(both),
    )


def trained_alone(run: Run, given: Sequence[Run]) -> Run | None:
    """The finished run in which the same clients trained alone, on the same data, with the same
    settings: one that is given, or else one in the folder that the run's own is in."""
    if run.method in ALONE or not run.rows:
        return None
    found = [other for other in [*given, *_beside(run)] if _comparable(run, other)]
    return min(found, key=lambda other: ALONE.index(other.method), default=None)


def _comparable(run: Run, other: Run) -> bool:
    same = all(run.config.get(key) == other.config.get(key) for key in SAME)
    return same and other.method in ALONE and bool(other.rows)


def _beside(run: Run) -> Iterator[Run]:
    looked = 0
    for path in sorted(run.folder.resolve().parent.glob("*/config.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            if not CALLED.search(text) or looked >= MOST:
                continue
            looked += 1
            config = yaml.safe_load(text)
            if all(config.get(key) == run.config.get(key) for key in SAME):
                yield load_run(Path(path.parent))
        except (BadInput, OSError, ValueError, yaml.YAMLError):
            continue  # of another run: its own page tells
