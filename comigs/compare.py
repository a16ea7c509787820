"""`comigs compare`: run every method of a suite over its grid and seeds, and tabulate.

A finished run is one JSON file named by the hash of its configuration, so a suite can be stopped at
any time, goes on where it was, and never runs the same thing twice.
"""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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

from comigs.api import with_threads
from comigs.config import RunConfig
from comigs.configload import config_hash, load_config, read_suite, to_dict
from comigs.errors import BadInput, ComigsError
from comigs.methods import find_method
from comigs.report.comparison import write_comparison
from comigs.report.table import events_of, final_rows


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
        jobs: runs at the same time, each in a process of its own.

    Raises:
        BadInput: when the suite is unusable.
        ComigsError: when runs failed; the others are kept.
    """
    suite = read_suite(name)
    if seeds is not None:
        suite["seeds"] = _seeds(seeds)
    cells = list(suite_cells(suite, overrides))
    folder = out or Path("runs") / f"compare-{Path(name).stem}"
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    missing = [c for c in cells if not (results / f"{config_hash(c)}.json").exists()]
    console = Console(stderr=True)
    console.print(
        f"{len(cells)} runs, {len(cells) - len(missing)} already done; results in {folder}"
    )
    failures = _run_all(missing, folder, jobs, console)
    rows = [
        json.loads((results / f"{config_hash(c)}.json").read_text())
        for c in cells
        if (results / f"{config_hash(c)}.json").exists()
    ]
    if rows:
        Console().print(write_comparison(rows, suite, folder), markup=False, highlight=False)
    if failures:
        raise ComigsError(f"{len(failures)} of {len(cells)} runs failed: {failures[0]}")
    return folder


def suite_cells(suite: dict[str, Any], overrides: Sequence[str]) -> Iterator[RunConfig]:
    """The configurations of a suite: seed by seed, each over the grid and the methods.

    What does not depend on the seed (a method that does not train) is run for the first seed only.
    """
    keys, values = list(suite["grid"]), list(suite["grid"].values())
    for number, seed in enumerate(suite["seeds"]):
        for point in itertools.product(*values):
            for method in suite["methods"]:
                if number and not find_method(method).trains:
                    continue
                settings = dict(zip(keys, point, strict=True)) | {"method": method, "seed": seed}
                dotted = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
                yield with_threads(load_config(suite["base"], [*dotted, *overrides]))


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"--seeds is {text!r}; give whole numbers, e.g. 42,45,47") from None


def _run_all(missing: list[RunConfig], folder: Path, jobs: int, console: Console) -> list[str]:
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
    workers: Queue = Queue()
    for _ in range(jobs):
        workers.put(_Worker())
    with bars, ThreadPoolExecutor(jobs) as pool:
        task = bars.add_task("", total=len(missing))
        futures = {pool.submit(_run_one, config, folder, workers): config for config in missing}
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
            while not workers.empty():
                workers.get().close()
    return failures


def _label(config: RunConfig) -> str:
    return f"{config.data.name}/{config.data.target} {config.method} seed {config.seed}"


def _run_one(config: RunConfig, folder: Path, workers: Queue) -> str | None:
    """Run or continue one configuration on a free worker; return its error, if any."""
    key = config_hash(config)
    work = folder / "work" / key
    worker = workers.get()
    try:
        if error := worker.run(config, work):
            return error
    finally:
        workers.put(worker)
    if failures := [e for e in events_of(work) if e["event"] == "failure" and "round" not in e]:
        return f"client {failures[0]['name']} failed its test: {failures[0]['reason']}"
    _keep(config, work, folder / "results" / f"{key}.json")
    shutil.rmtree(work)
    return None


class _Worker:
    """A process that runs one configuration after the other (comigs/compare_worker.py)."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, config: RunConfig, folder: Path) -> str | None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "comigs.compare_worker"]
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
            self.process.communicate()


def _keep(config: RunConfig, work: Path, path: Path) -> None:
    rounds = [e for e in events_of(work) if e["event"] == "round"]
    result = {
        "config": to_dict(config),
        "environment": json.loads((work / "environment.json").read_text()),
        "final": final_rows(work),
        "rounds": [
            {k: e[k] for k in ("round", "loss", "valid_ppl", "seconds", "bytes_up")} for e in rounds
        ],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
