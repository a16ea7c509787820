"""The table of a suite: mean +- sd over seeds, one column per point of the grid."""

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

Cell = dict[str, Any]


def write_comparison(results: list[dict[str, Any]], suite: dict[str, Any], folder: Path) -> str:
    """Write table.md, table.csv, table.json and table.html; return the Markdown.

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
    templates = Environment(
        loader=PackageLoader("comigs.report", "."), autoescape=select_autoescape()
    )
    page = templates.get_template("comparison.html.j2").render(
        title=suite["title"], columns=columns, methods=methods, best=_best(cells),
        table={(cell["method"], cell["column"]): cell for cell in cells},
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
    """Per column the method with the lowest mean."""
    best: dict[str, Cell] = {}
    for cell in cells:
        if cell["column"] not in best or cell["mean"] < best[cell["column"]]["mean"]:
            best[cell["column"]] = cell
    return {column: cell["method"] for column, cell in best.items()}


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
            row.append(f"**{text}**" if cell and best[column] == method else text)
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _csv(cells: list[Cell]) -> str:
    keys = ("method", "column", "mean", "sd", "valid", "worst_client", "trainable", "communicated")
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()
