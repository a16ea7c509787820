"""`comigs compare`: run every method of a suite over its grid and seeds, and tabulate.

A finished run is one JSON file named by the hash of its configuration, so a suite can be stopped at
any time, goes on where it was, and never runs the same thing twice.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from comigs.app.suite import Suite, SuiteRun, load_suite
from comigs.config.load import check_seeds, config_hash, to_dict
from comigs.config.settings import RunConfig
from comigs.data.corpus import client_names
from comigs.errors import BadInput, ComigsError
from comigs.report.comparison import write_comparison
from comigs.schema.bounds import shown
from comigs.store.eventjson import to_object
from comigs.store.events import ClientTrained, Failed, RoundDone
from comigs.store.metrics import events_of, final_rows
from comigs.store.plain import from_home
from comigs.store.strict import from_json, to_json
from comigs.store.whole import locked, write_whole


def run_suite(
    name: str,
    overrides: Sequence[str] = (),
    *,
    seeds: str | None = None,
    out: Path | None = None,
    jobs: int = 1,
) -> Path:
    """Run what is missing of a suite, write its tables, and return their folder.

    Args:
        name: a suite in experiments/suites, or a YAML file.
        overrides: `key=value` settings for every run.
        seeds: comma-separated seeds instead of the suite's.
        out: folder of all suites: results in OUT/runs, tables in OUT/<suite>.
        jobs: runs at the same time, each in a process of its own.

    Raises:
        BadInput: when the suite is unusable.
        ComigsError: when runs failed; the others are kept.
    """
    suite = load_suite(name, overrides, _seeds(seeds) if seeds is not None else None)
    home = from_home(out or Path("runs") / "compare")
    folder, results = home / Path(name).stem, home / "runs"
    results.mkdir(parents=True, exist_ok=True)
    try:
        with locked(home / ".lock"):
            return _run_missing(suite, folder, results, jobs)
    except BlockingIOError:
        raise BadInput(
            f"another comigs compare is at work in {home}; wait for it, or give another --out"
        ) from None


def _run_missing(suite: Suite, folder: Path, results: Path, jobs: int) -> Path:
    home = results.parent

    def kept(run: SuiteRun) -> Path:
        return results / f"{config_hash(run.config)}.json"

    missing = {config_hash(r.config): r for r in suite.runs if not _serves(kept(r), r.config)}
    for data in {run.config.data.name for run in missing.values()}:
        client_names(data)  # is there, or BadInput
    console = Console(stderr=True)
    console.print(f"{len(suite.runs)} runs, {len(missing)} of them to do; tables in {folder}")
    failures = _run_all(list(missing.values()), home, jobs, console)
    done = [
        (run.row, run.column, from_json(kept(run).read_text()))
        for run in suite.runs
        if kept(run).exists()
    ]
    if done:
        table = write_comparison(done, suite.rows, suite.title, folder, suite.reach)
        Console().print(table, markup=False, highlight=False, soft_wrap=True)
        _check_budget(done)
    if failures:
        raise ComigsError(f"{len(failures)} of {len(missing)} runs failed: {failures[0]}")
    return folder


def _serves(path: Path, config: RunConfig) -> bool:
    """Whether a kept result will do: also for curves, which not every suite records."""
    if not path.exists():
        return False
    rounds = from_json(path.read_text())["rounds"]
    return not (config.log.eval_every and rounds) or rounds[0]["valid_ppl"] is not None


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


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"--seeds is {shown(text)}; give whole numbers, e.g. 42,45,47") from None
    check_seeds("--seeds", seeds)
    return seeds


def _run_all(missing: list[SuiteRun], folder: Path, jobs: int, console: Console) -> list[str]:
    failures = []
    bars = Progress(
        TextColumn("[bold]runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )
    crew = [_Worker() for _ in range(jobs)]
    workers: Queue = Queue()
    for worker in crew:
        workers.put(worker)
    with bars, ThreadPoolExecutor(jobs) as pool:
        task = bars.add_task("", total=len(missing))
        futures = {pool.submit(run_one, run.config, folder, workers): run for run in missing}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                label = _label(futures[future])
                if error := future.result():
                    failures.append(f"{label}: {error}")
                    console.print(f"[red]{label} failed:[/red] {error}", highlight=False)
                elif not console.is_terminal:
                    console.print(f"{done}/{len(missing)} {label}", highlight=False)
                bars.update(task, advance=1, description=label)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in crew:  # also busy ones: the pool waits for them
                worker.close()
    return failures


def _label(run: SuiteRun) -> str:
    return " ".join(part for part in (run.column, run.row, f"seed {run.config.seed}") if part)


def run_one(config: RunConfig, folder: Path, workers: Queue) -> str | None:
    """Run or continue one configuration on a free worker; return its error, if any."""
    key = config_hash(config)
    work = folder / "work" / key
    worker = workers.get()
    try:
        if error := worker.run(config, work):
            return error
    finally:
        workers.put(worker)
    failures = [e for e in events_of(work) if isinstance(e, Failed) and e.round is None]
    if failures:
        return f"client {failures[0].name} failed its test: {failures[0].reason}"
    _keep(config, work, folder / "runs" / f"{key}.json")
    shutil.rmtree(work)
    return None


class _Worker:
    """A process that runs one configuration after the other (comigs/app/compare_worker.py)."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, config: RunConfig, folder: Path) -> str | None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "comigs.app.compare_worker"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdin and self.process.stdout
        request = {"config": to_dict(config), "folder": str(folder)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            return f"its process ended with exit code {self.process.wait()}"
        return json.loads(answer)["error"]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            with suppress(OSError), self.process:  # closes the pipes, and waits
                pass


def _keep(config: RunConfig, work: Path, path: Path) -> None:
    events = events_of(work)
    parts = ["round", "loss", "valid_ppl", "seconds", "bytes_up", "bytes_down"]
    parts += ["sim_seconds", "sim_joules", "late", "dropped"]
    rounds = [to_object(event) for event in events if isinstance(event, RoundDone)]
    trained = [event for event in events if isinstance(event, ClientTrained)]
    result = {
        "config": to_dict(config),
        "environment": json.loads((work / "environment.json").read_text()),
        "final": final_rows(work),
        "rounds": [{key: one[key] for key in parts if key in one} for one in rounds],
        "steps": sum(e.steps for e in trained),
        "tokens": sum(e.tokens for e in trained),
        "router_steps": sum(e.router_steps for e in trained),
        "peer_evaluations": sum(e.peer_evaluations or 0 for e in trained),
    }
    write_whole(path, to_json(result, indent=1) + "\n")
