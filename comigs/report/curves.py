"""Validation perplexity against rounds, bytes and simulated time, where it was recorded."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comigs.report.cells import Result
from comigs.report.plots import STYLE, pen, ticks, to_png, to_svg
from comigs.store.whole import write_whole

AXES = {"round": "rounds", "megabytes": "MB up and down, all clients", "seconds": "simulated s"}


class Point(NamedTuple):
    """Mean validation perplexity at the start of a round, and what it took to get there."""

    round: float
    megabytes: float
    seconds: float  # simulated; 0 without devices
    joules: float  # of all devices
    perplexity: float


def curve(results: Sequence[Result]) -> list[Point]:
    """Mean over seeds, at the start of each round that was evaluated."""
    points: dict[int, list[Point]] = {}
    for result in results:
        moved = seconds = joules = 0.0
        for event in result.get("rounds", []):
            at = event["round"] - 1
            if event.get("valid_ppl") is not None:
                point = Point(at, moved, seconds, joules, event["valid_ppl"])
                points.setdefault(at, []).append(point)
            moved += (event["bytes_up"] + event.get("bytes_down", 0)) / 1e6
            seconds += event.get("sim_seconds", 0.0)
            joules += event.get("sim_joules", 0.0)
    return [
        Point(*(statistics.mean(values) for values in zip(*same, strict=True)))
        for _, same in sorted(points.items())
    ]


def first_below(points: Sequence[Point], perplexity: float) -> Point | None:
    """The first point whose perplexity is `perplexity` or less."""
    return next((point for point in points if point.perplexity <= perplexity), None)


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
    timed = any(point.seconds for points in lines.values() for point in points)
    kinds = list(AXES) if timed else ["round", "megabytes"]
    with matplotlib.rc_context(STYLE):
        size = (1 + 4 * len(kinds), 0.6 + 2.6 * len(columns))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(columns), len(kinds), squeeze=False)
        for strip, column in zip(panels, columns, strict=True):
            for axes, kind in zip(strip, kinds, strict=True):
                for index, row in enumerate(rows):
                    points = lines.get((column, row), [])
                    line = [(getattr(point, kind), point.perplexity) for point in points]
                    if line and line[-1][0] > 0:
                        _line(axes, line, index, row)
                axes.set_yscale("log")
                ticks(axes, log=True)
                axes.set_xlabel(AXES[kind])
            strip[0].set_title(column.replace("_", " "), fontsize="medium", loc="left")
            strip[0].set_ylabel("validation perplexity")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper")
        svg = to_svg(figure, "curves", themed=False)
        write_whole(folder / "curves.svg", svg)
        write_whole(folder / "curves.png", to_png(figure))
        return to_svg(figure, "curves")


def _line(axes: Axes, points: Sequence[tuple[float, float]], index: int, label: str) -> None:
    axes.plot(*zip(*points, strict=True), **pen(index), lw=1.6, marker="o", ms=2.5, label=label)
