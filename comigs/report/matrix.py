"""A number for each two clients, as a picture that can be told another layer of them."""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from comigs.report.plots import INK, PALETTE, STYLE, to_svg

STRONGEST = 0.55  # opacity of a cell: what is written on it stays readable, on dark pages too
BARE = 0.9  # where nothing is written
LONGEST = 24  # characters of a name beside the picture
WRITTEN = 12  # clients; of more, cells are smaller and without numbers


def heat_map(
    clients: Sequence[str],
    matrix: Sequence[Sequence[float]],
    title: str = "divergence",
    top: float = 1.0,
    key: str = "",
) -> str:
    """The numbers of each two clients, as an <svg> element: stronger where they are larger.

    Negative ones have another hue, those that are NaN are left out, and so is the diagonal.

    Args:
        top: what is strongest.
        key: makes groups of ids, <key>-i-j, of a cell and, with -text behind, of its number.
    """
    count = len(matrix)
    names = [f"{i + 1} {clients[i][:LONGEST]}" for i in range(count)]
    written = count <= WRITTEN
    wide, high = (0.55, 0.42) if written else (0.24, 0.24)
    with matplotlib.rc_context(STYLE):
        beside = 0.6 + 0.075 * max(map(len, names))  # inches
        figure = Figure(figsize=(beside + wide * count, 0.6 + high * count), layout="constrained")
        axes = figure.add_subplot(xlim=(0, count), ylim=(count, 0))
        axes.grid(False)
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if i != j:
                    _cell(axes, i, j, value, top, written, f"{key}-{i}-{j}" if key else None)
        middles = [i + 0.5 for i in range(count)]
        axes.set_xticks(middles, [str(i + 1) for i in range(count)])
        axes.set_yticks(middles, names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return to_svg(figure, title, of=key)


def strongest(count: int) -> float:
    """The opacity of the strongest cells of so many clients."""
    return STRONGEST if count <= WRITTEN else BARE


def two_places(value: float) -> str:
    """0.12, a dash where there is no number, and no minus before 0.00."""
    return f"{round(value, 2) + 0.0:.2f}" if math.isfinite(value) else "\N{EN DASH}"


def _cell(
    axes: Axes, i: int, j: int, value: float, top: float, written: bool, gid: str | None
) -> None:
    strength = min(1.0, abs(value) / top) if math.isfinite(value) else 0.0
    strength *= STRONGEST if written else BARE
    colour = PALETTE[1 if value < 0 else 0]
    axes.add_patch(Rectangle((j, i), 1, 1, color=colour, alpha=strength, lw=0, gid=gid))
    if written:
        axes.text(
            j + 0.5, i + 0.5, two_places(value), color=INK, ha="center", va="center",
            gid=f"{gid}-text" if gid else None,
        )  # fmt: skip
