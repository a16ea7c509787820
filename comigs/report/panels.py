"""The picture of a suite's table: one panel per column, a dot and its sd per row."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comigs.report.cells import Cell, best_rows, is_reference
from comigs.report.plots import INK, PALETTE, STYLE, to_png, to_svg
from comigs.store.whole import write_whole


def draw_table(
    cells: Sequence[Cell], columns: Sequence[str], rows: Sequence[str], folder: Path
) -> str:
    """Write table.svg and table.png, and return the picture for the page.

    Each panel has a scale of its own.
    """
    best, wide = best_rows(cells), min(3, len(columns))
    deep = -(-len(columns) // wide)
    with matplotlib.rc_context(STYLE):
        size = (2.2 + 2.6 * wide if wide > 1 else 6.0, deep * (1.0 + 0.27 * len(rows)))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(deep, wide, sharey=True, squeeze=False).flat
        for axes, column in zip(panels, columns, strict=False):
            here = [cell for cell in cells if cell.column == column]
            _panel(axes, here, rows, best.get(column))
            axes.set_title(column.replace("_", " "), fontsize="medium", loc="left")
        for axes in figure.axes[len(columns) :]:
            axes.remove()
        figure.supxlabel("test perplexity, lower is better", fontsize="medium", color=INK)
        write_whole(folder / "table.svg", to_svg(figure, "table", themed=False))
        write_whole(folder / "table.png", to_png(figure))
        return to_svg(figure, "table")


def _panel(axes: Axes, cells: Sequence[Cell], rows: Sequence[str], best: str | None) -> None:
    """Draw one column; a reference far above the others is written at the edge instead."""
    others = [cell.mean for cell in cells if not is_reference(cell.method)]
    for cell in cells:
        place, reference = rows.index(cell.row), is_reference(cell.method)
        colour = PALETTE[2] if cell.row == best else PALETTE[-1 if reference else 0]
        if reference and others and cell.mean > 1.5 * max(others):
            axes.text(
                0.99, place, f"{cell.mean:,.0f} →", color=colour, ha="right", va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            continue
        axes.errorbar(
            cell.mean, place, xerr=cell.sd, fmt="D" if cell.row == best else "o", ms=5,
            color=colour, capsize=3, mfc="none" if reference else colour,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
