"""A run that goes on to more rounds than it was begun with."""

import shutil
from dataclasses import replace
from pathlib import Path

from comigs.config.load import rewrite_config
from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.federation.run import Run
from comigs.federation.stopping import over
from comigs.store.extended import Extended
from comigs.store.metrics import final_rows
from comigs.store.state import newest_state, saved_rounds
from comigs.training.schedules import rates_of


def check_longer(before: RunConfig, run: Run, folder: Path) -> None:
    """Refuse other rounds than the run in `folder` had, unless it can have them.

    Raises:
        BadInput: why it cannot.
    """
    from comigs_server.resume import watched_in

    rounds, stop = run.config.rounds, before.stop
    told = f"rounds is {rounds}; the run in {folder}"
    if rounds < before.rounds:
        raise BadInput(f"{told} has {before.rounds}: it can be made longer, not shorter", "rounds")
    if before.engine.name == "flower" or run.config.engine.name == "flower":
        raise BadInput(
            f"{told} is on devices that have agreed to {before.rounds} rounds, and hold to it; "
            "start a new run",
            "rounds",
        )
    if not run.method.trains:
        raise BadInput(f"{told} is of method {run.method.name!r}, which trains nothing", "rounds")
    newest = newest_state(folder / "server")
    whole = newest and any(folder.glob("clients/*/round_*"))
    if final_rows(folder) and not whole:
        raise BadInput(f"{told} keeps its final models, but no round to go on from", "rounds")
    if newest and over(stop, watched_in(newest[2])):
        raise BadInput(
            f"{told} has ended at round {newest[0]} by stop.patience {stop.patience}, so that more "
            f"rounds would not be trained; start a new run: comigs run {folder}/config.yaml "
            f"start={folder}",
            "rounds",
        )


def extend(before: RunConfig, run: Run, folder: Path) -> tuple[RunConfig, Extended]:
    """Make the run in `folder` as long as `run`, and keep which rounds have had other schedules.

    What is done so far keeps the learning rates that it had; whoever repeats the run by its
    config.yaml gets the same. Final models of clients are deleted: they would not be the run's.

    Returns:
        What to go on with, and what there is to tell.
    """
    from comigs_clients.pin import PIN

    config = replace(before, rounds=run.config.rounds)
    steps = run.steps_per_round
    number = max(saved_rounds(folder / "server"), default=0)
    had, has = rates_of(before, steps), rates_of(config, steps)
    if any(had(at) != has(at) for at in range(number * steps)):
        config = replace(config, extended=[*(before.extended or []), [number, before.rounds]])
    rates = None
    if number and config.extended:
        goes_on = rates_of(config, steps)
        rates = goes_on(number * steps - 1), goes_on(number * steps)
    for final in folder.glob("clients/*/final"):
        shutil.rmtree(final)
    (folder / PIN).unlink(missing_ok=True)  # these clients are the user's own
    rewrite_config(config, folder)
    longer = replace(run.config, extended=config.extended)
    return longer, Extended(number, before.rounds, config.rounds, rates)
