"""Pictures of run reports as SVG: drawn in the light palette, recoloured by the page's CSS."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

INK, LINE, BAD = "#1c2431", "#dbe1ea", "#b3261e"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b0518f", "#b98300", "#5b6573")
DASHES = ("-", "--", ":", "-.")
MOST = 2 * len(PALETTE)  # solid, then dashed lines; beyond that single lines cannot be told apart
MANY = "Thin: {} lines, more than can be told apart. In colour: their mean."
REPEATED = f"Behind the first {len(PALETTE)} the colours repeat, dashed."
LONGEST = 24  # characters of a name at the end of a line
APART = 0.065  # of the height of a picture, between two names
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Series:
    """One line: its name, its (place, value) points and its place in the palette."""

    label: str
    points: Sequence[tuple[float, float]]
    index: int = 0

    @property
    def finite(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class Picture:
    """An SVG with what the page says around it.

    Attributes:
        legend: (label, place in the palette).
        heat: whether it is an image, whose colours are not the page's.
    """

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()
    heat: bool = False


def lines(
    series: Sequence[Series],
    title: str,
    caption: str,
    unit: str,
    log: bool = False,
    mark: float | None = None,
    across: str = "round",
) -> Picture | None:
    """Values against rounds, or whatever is `across`; None where no line has two finite values.

    Each line has its name at its end. More than twelve are drawn alike, with their mean in colour.

    Args:
        mark: a round with a dotted line through it.
    """
    drawn = [s for s in series if any(y > 0 or not log for _, y in s.finite)]
    if len({x for s in drawn for x, _ in s.finite}) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(unit, across)
        if log:
            axes.set_yscale("log")
        if len(drawn) > MOST:
            for s in drawn:
                axes.plot(*zip(*s.finite, strict=True), color=PALETTE[-1], lw=0.7, alpha=0.45)
            caption = f"{caption} {MANY.format(len(drawn))}"
            drawn = [_mean_of(drawn)]
        elif max(s.index for s in drawn) >= len(PALETTE):
            caption = f"{caption} {REPEATED}"
        for s in drawn:
            marker = "o" if len(s.finite) <= 30 else ""
            axes.plot(*zip(*s.finite, strict=True), **pen(s.index), lw=1.8, marker=marker, ms=4)
        if mark is not None:
            axes.axvline(mark, color=INK, lw=1.2, ls=":")
        ticks(axes, log)
        if len(series) > 1:
            name_ends(axes, drawn)
        svg = to_svg(figure, title)
    return Picture(title, caption, svg)


def pen(index: int) -> dict[str, Any]:
    """Colour and dashes of a line by its place; alike only every 24th time."""
    turn, hue = divmod(index, len(PALETTE))
    return {"color": PALETTE[hue], "ls": DASHES[turn % len(DASHES)]}


def name_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Write each line's name beside its last point; the limits of the axes must be final."""
    inside = axes.transData + axes.transAxes.inverted()
    ends = sorted(
        ((float(inside.transform(s.finite[-1])[1]), s) for s in series), key=lambda end: end[0]
    )
    heights = spread([height for height, _ in ends], APART)
    for height, (_, s) in zip(heights, ends, strict=True):
        colour = pen(s.index)["color"]
        axes.annotate(
            s.label[:LONGEST], s.finite[-1], (1.03, height), textcoords="axes fraction",
            color=colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "alpha": 0.6, "shrinkB": 3},
        )  # fmt: skip


def spread(heights: Sequence[float], apart: float) -> list[float]:
    """The heights, which ascend, moved to be `apart` and, if there is room, below 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + apart) if placed else height)
    limit = 1.0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - apart
    return placed


def stacked(
    rounds: Sequence[int], parts: Sequence[tuple[str, list[float]]], title: str, caption: str
) -> Picture | None:
    """Seconds of each round, as bars of parts on top of each other; None without two rounds."""
    if len(rounds) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas("seconds")
        floor = [0.0] * len(rounds)
        for index, (_, values) in enumerate(parts):
            axes.bar(rounds, values, 0.7, floor, color=PALETTE[index])
            floor = [a + b for a, b in zip(floor, values, strict=True)]
        axes.set_xlim(min(rounds) - 0.7, max(rounds) + 0.7)
        axes.grid(False, axis="x")
        ticks(axes, log=False)
        svg = to_svg(figure, title)
    return Picture(title, caption, svg, [(label, i) for i, (label, _) in enumerate(parts)])


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160)
    return file.getvalue()


def to_svg(figure: Figure, name: str, themed: bool = True, of: str = "") -> str:
    """The figure as an <svg> element; themed: its colours are the page's CSS variables.

    Args:
        name: what a screen reader calls it; makes the element ids differ from those of others.
        of: what tells it from others of the same name on a page.
    """
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name + of}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # the browser has a font
        figure.savefig(text, format="svg", transparent=themed, metadata=nothing)
    if not themed:
        return text.getvalue()
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| id="[\w.]+_\d+"', "", svg)
    for colour, variable in {INK: "ink", LINE: "line", BAD: "bad"}.items():
        svg = svg.replace(colour, f"var(--{variable})")
    for number, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--s{number})")
    return svg


def _canvas(unit: str, across: str = "round") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=unit)
    return figure, axes


def ticks(axes: Axes, log: bool) -> None:
    low, high = axes.get_ylim()
    if log:
        wide = high > 8 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=max(low, 0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _mean_of(series: Sequence[Series]) -> Series:
    values: dict[float, list[float]] = {}
    for x, y in (point for s in series for point in s.finite):
        values.setdefault(x, []).append(y)
    label = f"mean of {len(series)}"
    return Series(label, [(x, sum(ys) / len(ys)) for x, ys in sorted(values.items())])
