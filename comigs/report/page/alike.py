"""How alike the clients' experts are: a picture for each kind of expert, layer by layer."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comigs.report.matrix import WRITTEN, heat_map, strongest, two_places
from comigs.report.page.tokens import evenly

Matrix = Sequence[Sequence[float]]

MOST = 60_000  # numbers of one picture; layers are left out beyond that
FAINT = 0.05  # cosines up to which no picture is stretched
SAME, PART, APART = 0.7, 0.3, -0.1  # bounds of the words for a mean cosine


@dataclass(frozen=True)
class Likeness:
    """Cosines between the experts of one kind of a run's n clients, n x n, NaN where none is.

    Attributes:
        kind: generalist or specialist.
        layers: the cosines by layer, from 1.
    """

    kind: str
    clients: Sequence[str]
    layers: Mapping[int, Matrix]

    @property
    def mean(self) -> Matrix:
        """Over the layers that have a number."""
        places = range(len(self.clients))
        return [
            [_mean([each[i][j] for each in self.layers.values()]) for j in places] for i in places
        ]


@dataclass(frozen=True)
class Alike:
    """By run folder what its clients have in common, and why of others nothing is known."""

    found: Mapping[Path, Sequence[Likeness]]
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Drawn:
    """A likeness as the page shows it."""

    title: str
    said: str
    top: float
    svg: str
    clients: Sequence[str]
    layers: Sequence[int]
    mean: Sequence[Sequence[str]]
    script: str
    wide: bool


def draw(likeness: Likeness, key: str) -> Drawn:
    """The picture of the mean over layers, and the numbers of all in JSON.

    Args:
        key: begins the ids of the picture's cells.
    """
    clients, mean = likeness.clients, likeness.mean
    numbers = sorted(likeness.layers)
    layers = [numbers[i] for i in evenly(len(numbers), max(1, MOST // len(clients) ** 2))]
    shown = [mean, *(likeness.layers[layer] for layer in layers)]
    top = max([FAINT, *(abs(value) for each in shown for _, _, value in _apart(each))])
    full = round(strongest(len(clients)) / top, 4)  # opacity of a cosine of 1
    flat = [[_rounded(value) for row in each for value in row] for each in shown]
    title = f"{likeness.kind.capitalize()}s"
    return Drawn(
        title,
        said(likeness),
        top,
        heat_map(clients, mean, f"{title} of {len(clients)} clients, cosines", top, key),
        clients,
        layers if len(layers) > 1 else [],
        [[two_places(value) for value in row] for row in mean],
        json.dumps({"key": key, "full": full, "shown": flat}, separators=(",", ":")),
        len(clients) > WRITTEN,
    )


def said(likeness: Likeness) -> str:
    """What the mean over layers says, in a sentence or two."""
    found = sorted(_apart(likeness.mean), key=lambda each: each[2])
    if not found:
        return f"No two clients have {likeness.kind}s that have learnt anything."
    mean = _mean([value for _, _, value in found])
    words = (
        "have learnt much the same"
        if mean >= SAME
        else "have learnt partly the same"
        if mean >= PART
        else "have learnt different things"
        if mean >= APART
        else "pull against each other"
    )
    text = f"The clients' {likeness.kind}s {words}: the mean cosine is {two_places(mean)}"
    if len(found) < 2:
        return f"{text}."
    ends = [
        f"{likeness.clients[i]} and {likeness.clients[j]} ({two_places(value)})"
        for i, j, value in (found[-1], found[0])
    ]
    return f"{text}. Most alike are {ends[0]}, least {ends[1]}."


def _apart(matrix: Matrix) -> list[tuple[int, int, float]]:
    """The numbers of every two different clients that have one."""
    return [
        (i, j, value)
        for i, row in enumerate(matrix)
        for j, value in enumerate(row[:i])
        if math.isfinite(value)
    ]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _rounded(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
