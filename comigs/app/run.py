"""Run a federation from Python."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from comigs.app.early import wanted_of
from comigs.app.environment import environment
from comigs.app.libraries import load_libraries
from comigs.app.result import RunResult
from comigs.config.load import changed_keys, read_config, write_config
from comigs.config.settings import RunConfig
from comigs.cores import cores
from comigs.data.corpus import forget_changed
from comigs.errors import BadInput
from comigs.hardware import resolve_device, use_device
from comigs.store.plain import from_home
from comigs.store.runfolder import held, taken, taken_anew
from comigs.store.whole import write_whole

if TYPE_CHECKING:
    from comigs.costs.plan import Plan
    from comigs.federation.run import Run
    from comigs.store.events import Event
    from comigs.track.tracker import Tracker
    from comigs_server.journal import Watcher

Watch = Callable[[dict[str, Any]], object]


def run(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    watch: Watch = lambda event: None,
    trackers: "Sequence[Tracker]" = (),
    report: bool = True,
    **settings: Any,
) -> RunResult:
    """Run a federation to its end.

    Args:
        source: preset name, YAML file, mapping, or None for the quickstart.
        overrides: `key=value` strings as on the command line.
        out: run folder; default runs/<name>-<time>.
        watch: called with every event as an object (see metrics.jsonl).
        trackers: of your own (`comigs.track.tracker`), beside those of `log.trackers`.
        report: write report.html at the end.
        settings: top-level settings, e.g. `rounds=3`, `method="fedavg"`.

    Raises:
        BadInput: when the configuration, the data or the model is unusable.
        ComigsError: when the run fails.
        Stopped: when a tracker ends it; `resume` goes on.
    """
    wanted = wanted_of(source, [*overrides, *_spelt(settings)])
    load_libraries()

    from comigs.app.fingerprint import at_home, write_origin
    from comigs.app.start import check_start
    from comigs.costs.fit import fit_devices
    from comigs.federation.machine import on_this_machine
    from comigs.federation.run import resolve

    run = _computing(fit_devices(resolve(on_this_machine(wanted))))
    _check(run)
    check_start(run)
    config = at_home(run.config)
    with taken(from_home(out)) if out else taken_anew(config.name) as folder:
        if config.engine.name == "flower":
            config = _named(config, folder)
        write_origin(config, folder)
        write_config(config, folder)
        run = resolve(config)  # the same, with places and a name that hold everywhere
        return _launch(run, folder, watch, trackers, report)


def plan(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> "tuple[RunConfig, Plan]":
    """What `run` would take on the devices and here; the resolved configuration, and the plan.

    A client that does not fit on its device is part of the plan, not an error.

    Raises:
        BadInput: when the configuration, the data or the model is unusable.
    """
    wanted = wanted_of(source, overrides)
    load_libraries()

    from comigs.app.start import check_start
    from comigs.costs.calibrate import calibrate, kind_of
    from comigs.costs.fit import fit_devices, place_devices
    from comigs.costs.footprint import peak_resident
    from comigs.costs.memory import peak_memory
    from comigs.costs.plan import make_plan
    from comigs.costs.work import token_flops
    from comigs.federation.machine import on_this_machine
    from comigs.federation.run import resolve

    run = resolve(on_this_machine(wanted))
    run = fit_devices(run) if run.config.devices.fit == "derive" else place_devices(run)
    run = _computing(run)
    _check(run)
    check_start(run)
    flops = [token_flops(client) for client in run.clients()]
    order = sorted(
        range(len(flops)), key=lambda i: (flops[i].router, flops[i].expert), reverse=True
    )
    workers = run.config.engine.workers if run.config.engine.name == "ray" else None
    speeds, process = {}, 0
    for client in map(run.client, order):  # the heaviest of each kind, and of all of them first
        if (kind := kind_of(client)) not in speeds:
            speeds[kind] = calibrate(client)
            process = process or peak_resident() - peak_memory(client).total
    return run.config, make_plan(run, speeds, process, workers or cores())


def resume(
    folder: str | Path,
    overrides: Sequence[str] = (),
    *,
    watch: Watch = lambda event: None,
    trackers: "Sequence[Tracker]" = (),
    report: bool = True,
    **settings: Any,
) -> RunResult:
    """Continue an interrupted run, or one that is to have more rounds.

    With as many rounds the result is the one it would have had. With more, schedules go on as in a
    run of so many (`comigs.app.extend`).

    Args:
        overrides: settings that do not change the numbers, e.g. `engine=ray`; `rounds=40`.
        report: write report.html at the end.
        settings: the same at top level, e.g. `rounds=40`.

    Raises:
        BadInput: when the folder is not a run, or a setting that matters differs.
    """
    folder = from_home(folder)
    before = read_config(folder)
    config = read_config(folder, [*overrides, *_spelt(settings)])
    if changed := [key for key in changed_keys(before, config) if key != "rounds"]:
        raise BadInput(
            f"{changed[0]} differs from the run in {folder}; start a new run to change it"
        )
    forget_changed(config.data.name)
    load_libraries()

    from comigs.app.extend import check_longer, extend
    from comigs.app.fingerprint import check_origin
    from comigs.federation.machine import with_engine
    from comigs.federation.run import resolve

    config = with_engine(config)
    run, longer = resolve(config), config.rounds != before.rounds
    if longer:
        check_longer(before, run, folder)
    check_origin(config, folder)
    _place(config)
    _check(run)
    with held(folder):
        if not longer:
            return _launch(run, folder, watch, trackers, report)
        config, extended = extend(before, run, folder)
        return _launch(resolve(config), folder, watch, trackers, report, [extended])


def _spelt(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _computing(run: "Run") -> "Run":
    """`run` with the arithmetic that its devices or this machine are good at; see `_place`."""
    from comigs.federation.machine import with_compute
    from comigs.federation.run import resolve

    _place(run.config)
    if run.config.engine.name == "flower":  # each device decides for itself
        return run
    return resolve(with_compute(run.config))


def _place(config: RunConfig) -> None:
    """Where clients train in this process, have its models where they do."""
    if config.engine.name == "inline":
        use_device(resolve_device(config.device))


def _named(config: RunConfig, folder: Path) -> RunConfig:
    """Give the run a name of its own on the server and the devices."""
    name = config.flower.run or f"{re.sub(r'[^A-Za-z0-9-]', '-', folder.name)}-{token_hex(4)}"
    return replace(config, flower=replace(config.flower, run=name.lstrip("-")))


def _check(run: "Run") -> None:
    from comigs.track.tracker import find_trackers
    from comigs_server.checks.run import check, check_without_data

    find_trackers(run.config)
    (check_without_data if run.config.engine.name == "flower" else check)(run)


def _launch(
    run: "Run",
    folder: Path,
    watch: Watch,
    trackers: "Sequence[Tracker]",
    report: bool,
    news: "Sequence[Event]" = (),
) -> RunResult:
    from comigs.app.start import begin
    from comigs.report.page import write_report
    from comigs.store.eventjson import to_object
    from comigs.store.metrics import final_rows
    from comigs.store.passing import FolderMade
    from comigs.track.notebook import Notebook, in_notebook
    from comigs.track.tracker import Trackers, find_trackers

    logging.getLogger("flwr").setLevel(logging.WARNING)
    shown = [Notebook()] if in_notebook() else []
    following = Trackers([*trackers, *shown, *find_trackers(run.config)])

    def tell(event: "Event") -> str | None:
        watch(to_object(event))
        return following.event(event)

    finished = False
    following.start(run.config, folder)
    try:
        for first in (FolderMade(str(folder)), *news):
            tell(first)
        write_whole(
            folder / "environment.json",
            json.dumps(environment(run.config.device), indent=2) + "\n",
        )
        if run.config.engine.name == "flower":
            from comigs.app.submission import run_on_superlink

            run_on_superlink(run, folder, tell)
        else:
            begin(run, folder)
            _run_here(run, folder, tell)
        finished = True
    finally:
        following.end(finished)
    if report:
        write_report([folder])
    return RunResult(folder, final_rows(folder))


def _run_here(run: "Run", folder: Path, watch: "Watcher") -> None:
    from comigs_server.grids import make_grid
    from comigs_server.journal import Journal
    from comigs_server.loop import run_rounds

    config = run.config
    with make_grid(
        config.engine.name,
        num_clients=len(run.names),
        state_dir=str(folder.resolve()),
        threads=config.threads or 1,
        workers=config.engine.workers or 1,
        timeout=config.server.round_timeout,
        fuse=1 if config.engine.fuse == "auto" else config.engine.fuse,
        ray=config.ray,
        classes=run.devices,
    ) as grid:
        run_rounds(grid, run, folder, Journal(folder, watch))
