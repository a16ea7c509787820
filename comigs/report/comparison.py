"""The table of a suite: mean +- sd over seeds, one column per point of the grid."""

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comigs.methods import all_methods
from comigs.report.plots import INK, PALETTE, STYLE, to_svg

Cell = dict[str, Any]


def write_comparison(results: list[dict[str, Any]], suite: dict[str, Any], folder: Path) -> str:
    """Write table.md, .csv, .json, .html, .svg and .png; return the Markdown.

    Args:
        results: one per finished run: its config and the final row of each client.
        suite: methods, grid, seeds and title.
    """
    cells = _cells(results, suite)
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    methods = [m for m in suite["methods"] if any(cell["method"] == m for cell in cells)]
    markdown = _markdown(cells, columns, methods)
    (folder / "table.md").write_text(markdown, encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(_csv(cells), encoding="utf-8")
    picture = _write_picture(cells, columns, methods, folder)
    templates = Environment(
        loader=PackageLoader("comigs.report", "."), autoescape=True, trim_blocks=True
    )
    page = templates.get_template("comparison.html.j2").render(
        title=suite["title"],
        columns=columns,
        methods=methods,
        best=_best(cells),
        table={(cell["method"], cell["column"]): cell for cell in cells},
        picture=picture,
    )
    (folder / "table.html").write_text(page, encoding="utf-8")
    return markdown


def _cells(results: list[dict[str, Any]], suite: dict[str, Any]) -> list[Cell]:
    """One cell per method and grid point; a run's value is the mean over its clients."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        point = [str(_get(result["config"], key)) for key in suite["grid"]]
        groups.setdefault((result["config"]["method"], " / ".join(point)), []).append(result)
    return [_cell(method, column, runs) for (method, column), runs in groups.items()]


def _cell(method: str, column: str, runs: list[dict[str, Any]]) -> Cell:
    means = [_mean_of(run, "after") for run in runs]
    final = runs[0]["final"]
    return {
        "method": method,
        "column": column,
        "seeds": [run["config"]["seed"] for run in runs],
        "perplexity": means,
        "mean": statistics.mean(means),
        "sd": statistics.stdev(means) if len(means) > 1 else None,
        "valid": statistics.mean(_mean_of(run, "valid") for run in runs),
        "worst_client": statistics.mean(max(r["after"] for r in run["final"]) for run in runs),
        "trainable": final[0]["trainable"],
        "communicated": final[0]["communicated"],
    }


def _mean_of(run: dict[str, Any], key: str) -> float:
    return statistics.mean(row[key] for row in run["final"])


def _get(config: dict[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        config = config[part]
    return config


def _best(cells: list[Cell]) -> dict[str, str]:
    """Per column the method with the lowest mean, references aside."""
    best: dict[str, Cell] = {}
    for cell in cells:
        if _is_reference(cell["method"]):
            continue
        if cell["column"] not in best or cell["mean"] < best[cell["column"]]["mean"]:
            best[cell["column"]] = cell
    return {column: cell["method"] for column, cell in best.items()}


def _is_reference(method: str) -> bool:
    """Whether a method only puts the others into proportion."""
    known = all_methods().get(method)
    return known is not None and known.paper == "reference"


def show(cell: Cell) -> str:
    """`12.3 ± 0.4`, or `12.3` where there is one run only."""
    return f"{cell['mean']:.2f}" + (f" ± {cell['sd']:.2f}" if cell["sd"] is not None else "")


def _markdown(cells: list[Cell], columns: list[str], methods: list[str]) -> str:
    best, by_key = _best(cells), {(cell["method"], cell["column"]): cell for cell in cells}
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in methods:
        row = []
        for column in columns:
            cell = by_key.get((method, column))
            text = "" if cell is None else show(cell)
            row.append(f"**{text}**" if cell and best.get(column) == method else text)
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _csv(cells: list[Cell]) -> str:
    keys = ("method", "column", "mean", "sd", "valid", "worst_client", "trainable", "communicated")
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def _write_picture(cells: list[Cell], columns: list[str], methods: list[str], folder: Path) -> str:
    """Write table.svg and table.png, and return the picture for the page.

    One panel per column, with a scale of its own: a dot and its sd per method.
    """
    best, wide = _best(cells), min(3, len(columns))
    deep = -(-len(columns) // wide)
    with matplotlib.rc_context(STYLE):
        size = (2.2 + 2.6 * wide if wide > 1 else 6.0, deep * (1.0 + 0.27 * len(methods)))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(deep, wide, sharey=True, squeeze=False).flat
        for axes, column in zip(panels, columns, strict=False):
            here = [cell for cell in cells if cell["column"] == column]
            _panel(axes, here, methods, best.get(column))
            axes.set_title(column.replace("_", " "), fontsize="medium", loc="left")
        for axes in figure.axes[len(columns) :]:
            axes.remove()
        figure.supxlabel("test perplexity, lower is better", fontsize="medium", color=INK)
        (folder / "table.svg").write_text(to_svg(figure, "table", themed=False), encoding="utf-8")
        figure.savefig(folder / "table.png", dpi=160)
        return to_svg(figure, "table")


def _panel(axes: Axes, cells: list[Cell], methods: list[str], best: str | None) -> None:
    """Draw one column; a reference far above the others is written at the edge instead."""
    others = [cell["mean"] for cell in cells if not _is_reference(cell["method"])]
    for cell in cells:
        place, mean = methods.index(cell["method"]), cell["mean"]
        reference = _is_reference(cell["method"])
        colour = PALETTE[2] if cell["method"] == best else PALETTE[-1 if reference else 0]
        if reference and others and mean > 1.5 * max(others):
            axes.text(
                0.99, place, f"{mean:,.0f} →", color=colour, ha="right", va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            continue
        axes.errorbar(
            mean, place, xerr=cell["sd"], fmt="D" if cell["method"] == best else "o", ms=5,
            color=colour, capsize=3, mfc="none" if reference else colour,
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
