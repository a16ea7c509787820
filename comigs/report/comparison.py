"""The tables and pictures of a suite: Markdown, CSV, JSON, HTML, SVG and PNG."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader

from comigs.report.cells import OURS, Cell, Result, best_rows, make_cells, regrets
from comigs.report.curves import curve, draw_curves, first_below
from comigs.report.links import as_link
from comigs.report.panels import draw_table
from comigs.store.strict import to_json
from comigs.store.whole import write_whole

REGRET = "Regret: the worst ratio of a method to the best of a column"
WORSE = "Share of (client, seed) pairs that end worse than by training alone"
ABOVE = f"Perplexity above {OURS}, over (client, seed) pairs; p: Wilcoxon signed-rank test"
WORST = "Worst client, and standard deviation over clients"
COST = "Parameters trained, and sent per round; MB up and down per client and run"
RACE = "simulated time, all clients' bytes and energy"


class Grid(NamedTuple):
    """A table as text; each row begins with its method."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_comparison(
    runs: Sequence[tuple[str, str, Result]],
    rows: Sequence[str],
    title: str,
    folder: Path,
    reach: float | None = None,
) -> str:
    """Write table.md, .csv, .json, .html, .svg and .png, and curves.*; return the main table.

    Args:
        runs: (row, column, result) of every finished run.
        rows: the order of the rows.
        reach: validation perplexity whose first crossing is tabulated.
    """
    cells = make_cells(runs)
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = [row for row in rows if any(cell.row == row for cell in cells)]
    folder.mkdir(parents=True, exist_ok=True)
    table = _markdown(_grid("", cells, columns, rows, show), best_rows(cells))
    details = [*_details(cells, columns, rows), *_race(runs, columns, rows, reach)]
    told = [f"{each.title}\n\n{_markdown(each)}" for each in details]
    write_whole(folder / "table.md", "\n".join([table, *told]))
    listed = to_json([asdict(cell) for cell in cells], indent=1)
    write_whole(folder / "table.json", listed + "\n")
    write_whole(folder / "table.csv", _csv(cells))
    pictures = [draw_table(cells, columns, rows, folder), draw_curves(runs, rows, folder)]
    templates = Environment(
        loader=PackageLoader("comigs.report", "."), autoescape=True, trim_blocks=True
    )
    page = templates.get_template("comparison.html.j2").render(
        title=title,
        columns=columns,
        rows=rows,
        best=best_rows(cells),
        table={(cell.row, cell.column): cell for cell in cells},
        further=details,
        csv=as_link(_csv(cells)),
        pictures=[picture for picture in pictures if picture],
    )
    write_whole(folder / "table.html", page)
    return table


def show(cell: Cell) -> str:
    """`12.3 ± 0.4`, or `12.3` where there is one run only or none that is finite."""
    deviation = cell.sd is not None and math.isfinite(cell.sd)
    return f"{cell.mean:.2f}" + (f" ± {cell.sd:.2f}" if deviation else "")


def show_effect(cell: Cell) -> str:
    """`+12.3 % (p 0.002)`: by how much the perplexity is above that of comigs."""
    if cell.effect is None:
        return ""
    return f"{100 * cell.effect:+.1f} %" + (f" (p {cell.p:.2g})" if cell.p is not None else "")


def show_cost(cell: Cell) -> str:
    """Parameters trained, and sent per round; MB of the run."""
    return f"{cell.trainable:,}, {cell.communicated:,}; {cell.megabytes:.1f}"


def show_worse(cell: Cell) -> str:
    return "" if cell.worse is None else f"{100 * cell.worse:.0f} %"


def _grid(
    title: str,
    cells: Sequence[Cell],
    columns: Sequence[str],
    rows: Sequence[str],
    text: Callable[[Cell], str],
) -> Grid:
    by_key = {(cell.row, cell.column): cell for cell in cells}
    found = [[by_key.get((row, column)) for column in columns] for row in rows]
    lines = [
        [row, *(text(cell) if cell else "" for cell in line)]
        for row, line in zip(rows, found, strict=True)
    ]
    return Grid(title, ["method", *columns], lines)


def _markdown(grid: Grid, best: Mapping[str, str] | None = None) -> str:
    """The table; bold in each column is the text of the row that is `best`."""
    lines = ["| " + " | ".join(grid.heads) + " |", "|---" * len(grid.heads) + "|"]
    for row, *texts in grid.rows:
        shown = [
            f"**{text}**" if text and best and best.get(column) == row else text
            for column, text in zip(grid.heads[1:], texts, strict=True)
        ]
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _details(cells: Sequence[Cell], columns: list[str], rows: list[str]) -> Iterable[Grid]:
    """Further tables: regret, the tests against others, fairness over clients, and cost."""
    if len(columns) > 1:
        lines = [[row, f"{ratio:.3f}"] for row, ratio in regrets(cells).items()]
        yield Grid(REGRET, ["method", "regret"], lines)
    if any(cell.worse is not None for cell in cells):
        yield _grid(WORSE, cells, columns, rows, show_worse)
    if any(cell.effect is not None for cell in cells):
        yield _grid(ABOVE, cells, columns, rows, show_effect)
    yield _grid(WORST, cells, columns, rows, lambda c: f"{c.worst_client:.2f}, {c.spread:.2f}")
    yield _grid(COST, cells, columns, rows, show_cost)


def _race(
    runs: Sequence[tuple[str, str, Result]],
    columns: list[str],
    rows: list[str],
    reach: float | None,
) -> Iterable[Grid]:
    """What it takes every method to reach a validation perplexity first."""
    if reach is None:
        return
    lines = []
    for row in rows:
        texts = []
        for column in columns:
            points = curve([result for r, c, result in runs if (r, c) == (row, column)])
            at = first_below(points, reach)
            texts.append(
                f"{at.seconds:.0f} s, {at.megabytes:.1f} MB, {at.joules:.0f} J" if at else "never"
            )
        lines.append([row, *texts])
    yield Grid(f"Until validation perplexity {reach:g}: {RACE}", ["method", *columns], lines)


def _csv(cells: Sequence[Cell]) -> str:
    keys = [field.name for field in fields(Cell) if field.name not in ("seeds", "perplexity")]
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in cells)
    return text.getvalue()
