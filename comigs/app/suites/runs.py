"""Runs that are kept by the hash of their configuration, several at a time, each of them once."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

from comigs.app.suites.suite import SuiteRun
from comigs.app.suites.tally import Tally
from comigs.config.load import config_hash, to_dict
from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.store.eventjson import to_object
from comigs.store.events import ClientTrained, Failed, RoundDone
from comigs.store.metrics import chosen_round, events_of, final_rows
from comigs.store.plain import from_home
from comigs.store.strict import from_json, to_json
from comigs.store.whole import locked, write_whole


@contextmanager
def results_in(out: Path | None) -> Iterator[Path]:
    """The folder of kept results, runs/compare by default; nobody else writes there meanwhile.

    Raises:
        BadInput: somebody does.
    """
    home = from_home(out or Path("runs") / "compare")
    (home / "runs").mkdir(parents=True, exist_ok=True)
    try:
        with locked(home / ".lock"):
            yield home
    except BlockingIOError:
        raise BadInput(
            f"another comigs compare or sweep is at work in {home}; wait for it, or give another "
            "--out"
        ) from None


def kept_at(home: Path, config: RunConfig) -> Path:
    """The file that holds, or will hold, the result of a configuration."""
    return home / "runs" / f"{config_hash(config)}.json"


def models_at(home: Path, config: RunConfig) -> Path:
    """The run folder that holds, or would hold, a configuration's final models."""
    return home / "models" / f"{config.method}-seed{config.seed}-{config_hash(config)}"


def missing_of(
    runs: Iterable[SuiteRun], home: Path, tally: Tally, keep_models: bool = False
) -> list[SuiteRun]:
    """Those of which no result is kept, or none that will do; each configuration once.

    Args:
        tally: is told how many are kept of other text than there is now, or of another base.
        keep_models: their models must be there, too.
    """
    wanted = {config_hash(run.config): run for run in runs}
    kept = {
        key: from_json(path.read_text())
        for key, run in wanted.items()
        if (path := kept_at(home, run.config)).exists()
    }
    others = _of_others(wanted, kept)
    if others:
        tally.say(f"{len(others)} kept runs began with other text, or another base: run anew")
    return [
        run
        for key, run in wanted.items()
        if key in others
        or key not in kept
        or not _serves(kept[key], run.config)
        or (keep_models and not models_at(home, run.config).is_dir())
    ]


def _of_others(wanted: Mapping[str, SuiteRun], kept: Mapping[str, Any]) -> set[str]:
    """Whose text or base has changed since; results of earlier versions do not tell."""
    from comigs.app.fingerprint import origin_now

    now: dict[tuple[str, str, str | None], str | None] = {}
    others = set()
    for key, before in ((key, origin) for key, r in kept.items() if (origin := r.get("origin"))):
        config = wanted[key].config
        source = config.data.name, config.model.name, config.devices.traces
        if source not in now:
            now[source] = origin_now(config)
        if now[source] not in (before, None):
            others.add(key)
    return others


def _serves(result: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether a kept result will do: also for curves, which not every suite records."""
    rounds = result["rounds"]
    return not (config.log.eval_every and rounds) or rounds[0]["valid_ppl"] is not None


def run_all(
    missing: list[SuiteRun], folder: Path, jobs: int, tally: Tally, keep_models: bool = False
) -> list[str]:
    """Run or continue each, `jobs` at a time; returns a line for each that failed.

    Args:
        tally: is told of each.
        keep_models: keep the final models, too.
    """
    failures = []
    crew = [_Worker() for _ in range(jobs)]
    workers: Queue = Queue()
    for worker in crew:
        workers.put(worker)
    with tally.over(len(missing)) as done, ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(run_one, run.config, folder, workers, keep_models): run for run in missing
        }
        try:
            for future in as_completed(futures):
                label, error = _label(futures[future]), future.result()
                if error:
                    failures.append(f"{label}: {error}")
                done(label, error)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in crew:  # also busy ones: the pool waits for them
                worker.close()
    return failures


def _label(run: SuiteRun) -> str:
    return " ".join(part for part in (run.column, run.row, f"seed {run.config.seed}") if part)


def run_one(
    config: RunConfig, folder: Path, workers: Queue, keep_models: bool = False
) -> str | None:
    """Run or continue one configuration on a free worker; return its error, if any."""
    key = config_hash(config)
    work = folder / "work" / key
    worker = workers.get()
    try:
        if error := worker.run(config, work, report=keep_models):
            return error
    finally:
        workers.put(worker)
    failures = [e for e in events_of(work) if isinstance(e, Failed) and e.round is None]
    if failures:
        return f"client {failures[0].name} failed its test: {failures[0].reason}"
    _keep(config, work, folder / "runs" / f"{key}.json")
    if keep_models:
        _keep_models(work, models_at(folder, config))
    else:
        shutil.rmtree(work)
    return None


def _keep_models(work: Path, to: Path) -> None:
    """Move a finished run to its place, without what only going on with it would need.

    The server's last round stays, with what the clients shared: others may `start` from it.
    """
    from comigs.store.state import round_folder, saved_rounds

    older = [round_folder(work / "server", n) for n in saved_rounds(work / "server")[:-1]]
    for rounds in (*older, *work.glob("clients/*/round_*")):
        shutil.rmtree(rounds, ignore_errors=True)
    to.parent.mkdir(exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    work.rename(to)


class _Worker:
    """A process that runs one configuration after the other (`compare_worker`)."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, config: RunConfig, folder: Path, report: bool) -> str | None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "comigs.app.suites.compare_worker"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdin and self.process.stdout
        request = {"config": to_dict(config), "folder": str(folder), "report": report}
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
    from comigs.app.fingerprint import origin_kept

    events = events_of(work)
    parts = ["round", "loss", "valid_ppl", "seconds", "bytes_up", "bytes_down"]
    parts += ["sim_seconds", "sim_joules", "late", "dropped"]
    rounds = [to_object(event) for event in events if isinstance(event, RoundDone)]
    trained = [event for event in events if isinstance(event, ClientTrained)]
    result = {
        "config": to_dict(config),
        "origin": origin_kept(work),
        "environment": json.loads((work / "environment.json").read_text()),
        "final": final_rows(work),
        "rounds": [{key: one[key] for key in parts if key in one} for one in rounds],
        "steps": sum(e.steps for e in trained),
        "tokens": sum(e.tokens for e in trained),
        "router_steps": sum(e.router_steps for e in trained),
        "peer_evaluations": sum(e.peer_evaluations or 0 for e in trained),
    }
    if chosen := chosen_round(work):
        result["chosen"] = to_object(chosen)
    write_whole(path, to_json(result, indent=1) + "\n")
