"""`comigs sweep`: which settings are best on validation text; runs are kept and not repeated.

The test split is read by every run, as ever, but what it says is shown of the best alone.
"""

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comigs.app.early import check_names
from comigs.app.source import with_source
from comigs.app.suites.runs import kept_at, missing_of, results_in, run_all
from comigs.app.suites.suite import SuiteRun, as_here
from comigs.app.suites.tally import Tally
from comigs.config.load import load_config
from comigs.errors import BadInput, ComigsError
from comigs.store.strict import from_json
from comigs.track.shown import Log

COMMA = re.compile(r",(?![^\[{(]*[\]})])")  # outside of brackets


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        settings: as `key=value`.
        valid: by seed, the mean over clients of the final validation perplexity.
        worst: the highest of a client, mean over seeds.
        test: mean test perplexity over clients and seeds.
    """

    settings: tuple[str, ...]
    valid: list[float]
    worst: float
    test: float

    @property
    def mean(self) -> float:
        """What they are chosen by."""
        return statistics.mean(self.valid)


def grid_of(settings: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Settings with several values, each as its `key=value`s; and the others as they are.

    Raises:
        BadInput: no setting has several values.
    """
    grid, fixed = [], []
    for setting in settings:
        key, _, value = setting.partition("=")
        values = COMMA.split(value)
        if len(values) > 1:
            grid.append([f"{key}={each}" for each in values])
        else:
            fixed.append(setting)
    if not grid:
        raise BadInput(
            "no setting has several values to choose from; give some, e.g. "
            "train.lr=0.001,0.003,0.01"
        )
    return grid, fixed


def sweep(
    source: str | None,
    settings: Sequence[str],
    *,
    seeds: Sequence[int] | None = None,
    out: Path | None = None,
    jobs: int = 1,
    log: Log | None = None,
    quiet: bool = False,
) -> list[Trial]:
    """Run every combination, and return them with the best on validation text first.

    Args:
        source: a preset, a YAML file, or None for the quickstart.
        settings: `key=value`, of which some have several values with commas between.
        seeds: each combination is run with each; None for the configuration's own.
        out: folder of kept results, which `comigs compare` uses, too.
        jobs: runs at the same time.
        log, quiet: how it is shown (`Tally`).

    Raises:
        BadInput: a setting cannot be used, or none has several values.
        ComigsError: runs failed; the others are kept.
    """
    tally = Tally(log, quiet)
    grid, fixed = grid_of(settings)
    points = list(itertools.product(*grid))
    given = [[]] if seeds is None else [[f"seed={seed}"] for seed in seeds]
    wanted = {
        point: [with_source(load_config(source, [*fixed, *point, *seed])) for seed in given]
        for point in points
    }
    for config in itertools.chain.from_iterable(wanted.values()):
        check_names(config)

    runs = {
        point: [SuiteRun(" ".join(point), "", as_here(config)) for config in configs]
        for point, configs in wanted.items()
    }
    every = list(itertools.chain.from_iterable(runs.values()))
    with results_in(out) as home:
        missing = missing_of(every, home, tally)
        tally.say(f"{len(every)} runs, {len(missing)} of them to do; results in {home}")
        if failures := run_all(missing, home, jobs, tally):
            raise ComigsError(f"{len(failures)} of {len(missing)} runs failed: {failures[0]}")
        found = [
            _trial(point, [from_json(kept_at(home, run.config).read_text()) for run in mine])
            for point, mine in runs.items()
        ]
    return sorted(found, key=lambda trial: trial.mean)


def _trial(point: tuple[str, ...], results: list[dict[str, Any]]) -> Trial:
    def means(key: str) -> list[float]:
        return [statistics.mean(row[key] for row in result["final"]) for result in results]

    worst = statistics.mean(max(row["valid"] for row in result["final"]) for result in results)
    return Trial(point, means("valid"), worst, statistics.mean(means("after")))
