"""`comigs sweep`: settings tried, and the best of them on validation text."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.cli.base import Debug, LogAs, Quiet, expanded, fail, split
from comigs.errors import ComigsError
from comigs.store.strict import to_json

if TYPE_CHECKING:
    from comigs.app.suites.sweep import Trial


def sweep_command(
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] key=a,b,c ... [key=value ...]",
            help="A preset or a YAML file, then settings; those with commas are tried.",
            show_default=False,
        ),
    ],
    seeds: Annotated[str | None, typer.Option(help="Seeds of each, e.g. 42,45,47.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of kept results; default runs/compare.", callback=expanded),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    log: LogAs = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Try every combination of some settings and choose on validation text.

    Finished runs are kept by the hash of their configuration, beside those of comigs compare: the
    command can be stopped at any time and goes on where it was.

    \b
    comigs sweep train.lr=0.003,0.01,0.03 router.lr=0.01,0.05 rounds=5
    """
    from comigs.app.suites.compare import seeds_of
    from comigs.app.suites.sweep import grid_of, sweep

    source, chosen = split(settings)
    try:
        numbers = None if seeds is None else seeds_of(seeds)
        trials = sweep(source, chosen, seeds=numbers, out=out, jobs=jobs, log=log, quiet=quiet)
        if log == "json":
            for number, trial in enumerate(trials):
                told = {"event": "trial", **asdict(trial)}
                if number:  # what the test says is told of the best alone
                    del told["test"]
                typer.echo(to_json(told))
        elif quiet:
            typer.echo(" ".join(trials[0].settings))
        else:
            show_trials(trials, [*([source] if source else []), *grid_of(chosen)[1]])
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; finished runs are kept; the same command goes on", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)


def show_trials(trials: "Sequence[Trial]", fixed: Sequence[str]) -> None:
    """Print all trials by validation perplexity, and what the best of them does on test text.

    Args:
        fixed: what else was given, for the command that runs the best again.
    """
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("settings", overflow="fold")
    for name in ("valid", "worst client"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, trial in enumerate(trials):
        numbers = (f"{trial.mean:.2f}", f"{trial.worst:.2f}")
        table.add_row(
            escape(" ".join(trial.settings)), *numbers, style="bold" if number == 0 else None
        )
    console.print(table)
    best = trials[0]
    again = ["comigs", "run", *fixed, *best.settings]
    console.print(
        "Validation perplexity, mean over clients and seeds, lower is better. Test perplexity of "
        f"the best: {best.test:.2f}"
    )
    console.print(escape(shlex.join(again)))
