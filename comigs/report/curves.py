"""Validation perplexity against rounds and against bytes, where a suite's runs have recorded it."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comigs.report.cells import Result
from comigs.report.plots import PALETTE, STYLE, to_svg

Point = tuple[float, float, float]  # round, megabytes moved so far, validation perplexity


def curve(results: Sequence[Result]) -> list[Point]:
    """Mean over seeds, at the start of each round that was evaluated."""
    points: dict[int, list[tuple[float, float]]] = {}
    for result in results:
        moved = 0.0
        for event in result.get("rounds", []):
            if event.get("valid_ppl") is not None:
                points.setdefault(event["round"] - 1, []).append((moved, event["valid_ppl"]))
            moved += (event["bytes_up"] + event.get("bytes_down", 0)) / 1e6
    return [
        (number, statistics.mean(x for x, _ in at), statistics.mean(y for _, y in at))
        for number, at in sorted(points.items())
    ]


def draw_curves(
    runs: Sequence[tuple[str, str, Result]], rows: Sequence[str], folder: Path
) -> str | None:
    """Write curves.svg and curves.png and return the picture for the page; None without data."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for row, column, result in runs:
        groups.setdefault((column, row), []).append(result)
    lines = {key: points for key, results in groups.items() if (points := curve(results))}
    columns = list(dict.fromkeys(column for column, _ in lines))
    if not columns:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.6 + 2.6 * len(columns)), layout="constrained")
        panels = figure.subplots(len(columns), 2, squeeze=False)
        for (left, right), column in zip(panels, columns, strict=True):
            for index, row in enumerate(rows):
                points = lines.get((column, row), [])
                if points:
                    _line(left, [(p[0], p[2]) for p in points], index, row)
                if points and points[-1][1] > 0:
                    _line(right, [(p[1], p[2]) for p in points], index, row)
            left.set_title(column.replace("_", " "), fontsize="medium", loc="left")
            left.set_ylabel("validation perplexity")
            for axes, unit in ((left, "rounds"), (right, "MB up and down, all clients")):
                axes.set_yscale("log")
                axes.set_xlabel(unit)
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper")
        svg = to_svg(figure, "curves", themed=False)
        (folder / "curves.svg").write_text(svg, encoding="utf-8")
        figure.savefig(folder / "curves.png", dpi=160)
        return to_svg(figure, "curves")


def _line(axes: Axes, points: Sequence[tuple[float, float]], index: int, label: str) -> None:
    dashed = index >= len(PALETTE)
    axes.plot(
        *zip(*points, strict=True), color=PALETTE[index % len(PALETTE)], lw=1.6,
        ls="--" if dashed else "-", marker="o", ms=2.5, label=label,
    )  # fmt: skip
