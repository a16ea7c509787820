"""The command line. Heavy imports wait until a command needs them."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Commands, Debug, LogAs, Quiet, expanded, split
from comigs.cli.base import fail as _fail
from comigs.cli.data import app as data
from comigs.cli.deploy import app as deploy
from comigs.cli.devices import app as devices
from comigs.cli.results.evaluate import evaluate
from comigs.cli.results.export import export
from comigs.cli.results.join import join_command
from comigs.cli.results.look import report, watch
from comigs.cli.results.serve import serve
from comigs.cli.results.talk import chat_command, generate
from comigs.cli.settings import settings_command
from comigs.cli.sweep import sweep_command
from comigs.errors import BadInput, ComigsError
from comigs.heap import own_process
from comigs.store.strict import to_json
from comigs.store.whole import check_place, write_whole
from comigs.version import __version__

app = typer.Typer(
    name="comigs",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated fine-tuning of language models on unequal devices with mixtures of LoRA "
    "experts.\n\nStart with: comigs run   (offline, a minute and a half on two cores)",
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def run(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [key=value ...]",
            help="A preset (quickstart, paper, ...) or a YAML file, then settings to change, "
            "e.g. rounds=3 experts.rank=4 engine=ray.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/<name>-<time>.", callback=expanded)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the run in this folder; with rounds=N, to more rounds than it had.",
            callback=expanded,
        ),
    ] = None,
    log: LogAs = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a federation and show who gained.

    \b
    comigs run                                    the quickstart: 4 clients, 4 languages
    comigs run rounds=3 method=fedavg             change settings
    comigs run my.yaml --out runs/mine            your own configuration
    comigs run --resume runs/mine                 go on after Ctrl-C or a crash
    comigs run --resume runs/mine rounds=40       go on to more rounds
    comigs settings                               every setting, and what it means
    """
    from comigs.app import run as api
    from comigs.track.shown import shown

    source, overrides = split(settings or [])
    if resume and (source or out):
        _fail(BadInput("--resume takes its configuration and folder from the run itself"), debug)
    try:
        progress = shown(log, quiet)
    except BadInput as error:
        _fail(error, debug)
    try:
        with progress:
            if resume:
                result = api.resume(resume, overrides, trackers=[progress])
            else:
                result = api.run(source, overrides, out=out, trackers=[progress])
    except KeyboardInterrupt:
        folder = progress.folder
        hint = f"go on with: comigs run --resume {folder}" if folder else "nothing was started yet"
        typer.echo(f"\ninterrupted; every finished round is saved; {hint}", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        if progress.folder and not isinstance(error, BadInput):
            error = ComigsError(f"{error}; go on with: comigs run --resume {progress.folder}")
        _fail(error, debug)
    progress.table(result.table, result.folder)


def compare(
    suite: Annotated[str, typer.Argument(help="A suite (quickstart, table1, ...) or a YAML file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value ...]", show_default=False)
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, e.g. 42,45,47.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all suites; default runs/compare. Tables: OUT/<suite>.",
            callback=expanded,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep final models, as run folders in OUT/models.")
    ] = False,
    log: LogAs = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the methods of a suite and tabulate them (Markdown, CSV, JSON, HTML).

    Finished runs are kept in the folder by the hash of their configuration: the command can be
    stopped at any time and goes on where it was.
    """
    from comigs.app.suites.compare import run_suite

    try:
        folder = run_suite(
            suite,
            settings or [],
            seeds=seeds,
            out=out,
            jobs=jobs,
            keep_models=keep_models,
            log=log,
            quiet=quiet,
        )
        if quiet:
            typer.echo(folder)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; finished runs are kept; the same command goes on", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        _fail(error, debug)


def plan(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG] [key=value ...]", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Also write it, client by client, to this file.", callback=expanded
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what a run would take: memory, work, bytes, energy and time, before it starts.

    \b
    comigs plan                                          the quickstart
    comigs plan devices.profiles='{phone-low: 3, laptop: 1}'
    """
    from comigs.app import run as api

    try:
        if json_file:
            check_place(json_file)
        config, planned = api.plan(*split(settings or []))

        from comigs.cli.plan import plan_json, show_plan

        show_plan(config, planned)
        if json_file:
            write_whole(json_file, to_json(plan_json(config, planned), indent=1) + "\n")
    except ComigsError as error:
        _fail(error, debug)


def methods() -> None:
    """List the methods with their papers."""
    from rich.console import Console
    from rich.table import Table

    from comigs.methods import all_methods

    table = Table("method", "what it does", "paper", box=None, pad_edge=False)
    for method in all_methods().values():
        table.add_row(method.name, method.summary, method.paper)
    Console().print(table)


PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {"run": run, "compare": compare, "sweep": sweep_command, "join": join_command},
    "What came out": {
        "report": report,
        "watch": watch,
        "generate": generate,
        "chat": chat_command,
        "serve": serve,
        "eval": evaluate,
        "export": export,
    },
    "Before you start": {
        "plan": plan,
        "methods": methods,
        "settings": settings_command,
    },
}
for panel, members in PANELS.items():
    for name, command in members.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(devices, name="devices", rich_help_panel="Before you start")
app.add_typer(data, name="data", rich_help_panel="Before you start")
app.add_typer(deploy, name="deploy", rich_help_panel="On real devices")


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `comigs` command."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not burn a busy CPU
    own_process()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    if "--debug" in sys.argv:
        logging.basicConfig(level=logging.DEBUG)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` ends like Ctrl-C
    try:
        app()
    finally:
        # CPython takes an interrupt inside exec(text) for unhandled even when it is caught, and
        # would end by the signal; the next exec forgets it. Libraries exec while they load.
        exec("")
