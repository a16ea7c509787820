"""The picture of who ended where: a line for each client."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from comigs.report.plots import BAD, INK, PALETTE, STYLE, Picture, to_svg

MOST = 40  # clients; of more those that end worst
LONGEST = 24  # characters of a name
TITLE = "Test perplexity of each client"
PLAIN = "Lower is better. Dot: the client's final model."
CAPTION = (
    "Lower is better. Ring: before averaging, as the client's own last steps left its model. Dot: "
    "after averaging, the model it keeps; red where averaging made it worse on the client's own "
    "text."
)


def draw_dumbbell(
    rows: Sequence[dict[str, Any]], alone: Mapping[str, float], of: str = ""
) -> Picture | None:
    """Base, before and after averaging of each client, and what it has by training alone.

    A base that is far above the others is written at the edge. None without finite numbers.

    Args:
        of: the run, where a page has several.
    """
    drawn = [row for row in rows if all(math.isfinite(row[key]) for key in ("before", "after"))]
    drawn = sorted(drawn, key=lambda row: row["after"])[-MOST:]
    if not drawn:
        return None
    names = {row["name"] for row in drawn}
    learnt = [row[key] for row in drawn for key in ("before", "after")]
    learnt += [value for name, value in alone.items() if name in names]
    averaged = any(row["before"] != row["after"] for row in drawn)
    edge = 1.3 * max(learnt)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.9 + 0.34 * len(drawn)), layout="constrained")
        axes = figure.add_subplot(xlabel="test perplexity")
        for place, row in enumerate(drawn):
            before, after, base = row["before"], row["after"], row["pretrained"]
            colour = BAD if after > before else PALETTE[2]
            if averaged:
                axes.plot([before, after], [place, place], color=colour, lw=2.5)
                axes.plot(before, place, "o", ms=8, mfc="none", mec=PALETTE[0], mew=1.6)
            axes.plot(after, place, "o", ms=6, color=colour)
            if row["name"] in alone:
                axes.plot(alone[row["name"]], place, "D", ms=6, mfc="none", mec=PALETTE[3], mew=1.6)
            if base <= edge:
                axes.plot(base, place, "|", ms=11, color=INK, mew=2)
            else:
                axes.text(
                    1, place, f"base {base:,.0f} →", color=INK, ha="right", va="center",
                    transform=axes.get_yaxis_transform(),
                )  # fmt: skip
        axes.set_yticks(range(len(drawn)), [row["name"][:LONGEST] for row in drawn])
        axes.set_ylim(-0.6, len(drawn) - 0.4)
        axes.margins(x=0.28)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + (high - low) / 8)  # room for what is at the edge
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        svg = to_svg(figure, TITLE, of=of)
    more = " Diamond: by training alone." if alone else ""
    less = f" The {MOST} clients that end worst, of {len(rows)}." if len(drawn) < len(rows) else ""
    return Picture(TITLE, (CAPTION if averaged else PLAIN) + more + less, svg)
