"""The numbers of a comparison: one cell per row (method) and column (setting) of a suite."""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from comigs.methods import own_methods

Result = dict[str, Any]  # what `comigs compare` keeps of a run
OURS = "comigs"  # the row that others are tested against
ALONE = ("local-moe", "local")  # rows that train alone; the first that a suite has counts


@dataclass(frozen=True)
class Cell:
    """All seeds of one row and column. A run's perplexity is the mean over its clients.

    Attributes:
        perplexity: per seed; `mean` and `sd` are over these (sd: None for one seed).
        valid: mean validation perplexity, for choices that must not see test text.
        worst_client, spread: highest perplexity of a client, and sd over clients; mean over seeds.
        trainable, communicated: parameters per client, and those it sends per round.
        megabytes: up and down per client over the whole run.
        effect: how much lower this row's perplexity is than that of `comigs`: the geometric mean
            of the ratio over (client, seed) pairs, minus 1. Negative: better than `comigs`.
        p: of a two-sided Wilcoxon signed-rank test on the pairs' log ratios.
        worse: share of the (client, seed) pairs that end worse than by training alone.
    """

    method: str
    row: str
    column: str
    seeds: list[int]
    perplexity: list[float]
    mean: float
    sd: float | None
    valid: float
    worst_client: float
    spread: float
    trainable: int
    communicated: int
    megabytes: float
    effect: float | None
    p: float | None
    worse: float | None


def make_cells(runs: Iterable[tuple[str, str, Result]]) -> list[Cell]:
    """Group (row, column, result) into cells."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for row, column, result in runs:
        groups.setdefault((row, column), []).append(result)
    return [
        _cell(
            row,
            column,
            results,
            groups.get((OURS, column), []),
            next((groups[one, column] for one in ALONE if (one, column) in groups), []),
        )
        for (row, column), results in groups.items()
    ]


def _cell(
    row: str, column: str, runs: list[Result], ours: list[Result], alone: list[Result]
) -> Cell:
    means = [_mean_of(run, "after") for run in runs]
    final = [client for run in runs for client in run["final"]]
    effect, p = (None, None) if row == OURS else paired(runs, ours)
    return Cell(
        method=runs[0]["config"]["method"],
        row=row,
        column=column,
        seeds=[run["config"]["seed"] for run in runs],
        perplexity=means,
        mean=statistics.mean(means),
        sd=_deviation(means, statistics.stdev) if len(means) > 1 else None,
        valid=statistics.mean(_mean_of(run, "valid") for run in runs),
        worst_client=statistics.mean(max(r["after"] for r in run["final"]) for run in runs),
        spread=statistics.mean(
            _deviation([r["after"] for r in run["final"]], statistics.pstdev) for run in runs
        ),
        trainable=round(statistics.mean(client["trainable"] for client in final)),
        communicated=round(statistics.mean(client["communicated"] for client in final)),
        megabytes=statistics.mean(c["bytes_up"] + c["bytes_down"] for c in final) / 1e6,
        effect=effect,
        p=p,
        worse=None if row in ALONE else share_worse(runs, alone),
    )


def share_worse(runs: list[Result], alone: list[Result]) -> float | None:
    """Share of the (client, seed) pairs both have in which `runs` end with more perplexity."""
    mine, other = _by_pair(runs), _by_pair(alone)
    both = mine.keys() & other.keys()
    return sum(mine[key] > other[key] for key in both) / len(both) if both else None


def regrets(cells: Iterable[Cell]) -> dict[str, float]:
    """By row, the worst ratio of its mean to the best of a column, references aside.

    Only of rows that have every column: who misses one may have missed the worst.
    """
    known = [cell for cell in cells if not is_reference(cell.method)]
    means = {(cell.row, cell.column): cell.mean for cell in known}
    best = {column: means[row, column] for column, row in best_rows(known).items()}
    rows = dict.fromkeys(cell.row for cell in known)
    return {
        row: max(means[row, column] / lowest for column, lowest in best.items())
        for row in rows
        if best and all((row, column) in means for column in best)
    }


def paired(runs: list[Result], ours: list[Result]) -> tuple[float | None, float | None]:
    """Return (effect, p) of `runs` against `ours` over the (client, seed) pairs both have.

    Neither exists where a perplexity is infinite.
    """
    mine, other = _by_pair(runs), _by_pair(ours)
    both = sorted(mine.keys() & other.keys())
    if not both or not all(math.isfinite(each[key]) for each in (mine, other) for key in both):
        return None, None
    logs = [math.log(mine[key] / other[key]) for key in both]
    effect = math.exp(statistics.mean(logs)) - 1
    if len(logs) < 6 or not any(logs):  # the test cannot reach 0.05 with fewer
        return effect, None
    from scipy.stats import wilcoxon

    return effect, float(wilcoxon(logs).pvalue)


def _deviation(values: list[float], of: Callable[[list[float]], float]) -> float:
    """Standard deviation; infinite where a value is."""
    return of(values) if all(map(math.isfinite, values)) else math.inf


def _by_pair(runs: list[Result]) -> dict[tuple[str, int], float]:
    return {
        (client["name"], run["config"]["seed"]): client["after"]
        for run in runs
        for client in run["final"]
    }


def _mean_of(run: Result, key: str) -> float:
    return statistics.mean(row[key] for row in run["final"])


def is_reference(method: str) -> bool:
    """Whether a method only puts the others into proportion."""
    known = own_methods().get(method)
    return known is not None and known.paper == "reference"


def best_rows(cells: Iterable[Cell]) -> dict[str, str]:
    """Per column the row with the lowest mean, references aside."""
    best: dict[str, Cell] = {}
    for cell in cells:
        if is_reference(cell.method):
            continue
        if cell.column not in best or cell.mean < best[cell.column].mean:
            best[cell.column] = cell
    return {column: cell.row for column, cell in best.items()}
