"""`comigs compare`: run every method of a suite over its grid and seeds, and tabulate.

A finished run is one JSON file named by the hash of its configuration, so a suite can be stopped at
any time, goes on where it was, and never runs the same thing twice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comigs.app.suites.runs import kept_at, missing_of, results_in, run_all
from comigs.app.suites.suite import Suite, load_suite
from comigs.app.suites.tally import Tally
from comigs.config.load import check_seeds
from comigs.data.corpus import client_names
from comigs.errors import BadInput, ComigsError
from comigs.report.comparison import write_comparison
from comigs.schema.bounds import shown
from comigs.store.strict import from_json
from comigs.track.shown import Log


def run_suite(
    name: str,
    overrides: Sequence[str] = (),
    *,
    seeds: str | None = None,
    out: Path | None = None,
    jobs: int = 1,
    keep_models: bool = False,
    log: Log | None = None,
    quiet: bool = False,
) -> Path:
    """Run what is missing of a suite, write its tables, and return their folder.

    Args:
        name: a suite in experiments/suites, or a YAML file.
        overrides: `key=value` settings for every run.
        seeds: comma-separated seeds instead of the suite's.
        out: folder of all suites: results in OUT/runs, tables in OUT/<suite>.
        jobs: runs at the same time, each in a process of its own.
        keep_models: keep every run's final models as a run folder in OUT/models.
        log, quiet: how it is shown (`Tally`).

    Raises:
        BadInput: when the suite is unusable.
        ComigsError: when runs failed; the others are kept.
    """
    tally = Tally(log, quiet)
    suite = load_suite(name, overrides, seeds_of(seeds) if seeds is not None else None)
    with results_in(out) as home:
        return _run_missing(suite, home / Path(name).stem, home, jobs, keep_models, tally)


def _run_missing(
    suite: Suite, folder: Path, home: Path, jobs: int, keep_models: bool, tally: Tally
) -> Path:
    missing = missing_of(suite.runs, home, tally, keep_models)
    for data in {run.config.data.name for run in missing}:
        client_names(data)  # is there, or BadInput
    tally.say(f"{len(suite.runs)} runs, {len(missing)} of them to do; tables in {folder}")
    failures = run_all(missing, home, jobs, tally, keep_models)
    done = [
        (run.row, run.column, from_json(kept_at(home, run.config).read_text()))
        for run in suite.runs
        if kept_at(home, run.config).exists()
    ]
    if done:
        table = write_comparison(done, suite.rows, suite.title, folder, suite.reach)
        tally.result(table)
        _check_budget(done)
    if failures:
        raise ComigsError(f"{len(failures)} of {len(missing)} runs failed: {failures[0]}")
    return folder


def _check_budget(done: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Refuse to let rows stand side by side that have not seen the same number of tokens.

    On simulated devices rows have the same rounds instead: late clients are part of the result.
    """
    seen: dict[tuple[str, int], dict[int, str]] = {}
    for row, column, result in done:
        if result.get("tokens") and not result["config"].get("devices", {}).get("profiles"):
            cell = seen.setdefault((column, result["config"]["seed"]), {})
            cell.setdefault(result["tokens"], row)
    for (column, seed), rows in seen.items():
        if len(rows) > 1:
            counts = ", ".join(f"{row} {tokens:,}" for tokens, row in rows.items())
            raise ComigsError(
                f"{column or 'the suite'}, seed {seed}: unequal budgets, in tokens: {counts}; was "
                "a client lost? Delete that run's file in OUT/runs to repeat it"
            )


def seeds_of(text: str) -> list[int]:
    """`42,45,47` as numbers. Raises: BadInput."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"--seeds is {shown(text)}; give whole numbers, e.g. 42,45,47") from None
    check_seeds("--seeds", seeds)
    return seeds
