"""`comigs join`: a newcomer's model from a run's generalists, beside what it would have without."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.cli.base import Debug, LogAs, Quiet, expanded, fail
from comigs.errors import BadInput, ComigsError
from comigs.store.strict import to_json
from comigs.track.shown import Log, check_shown, shown

if TYPE_CHECKING:
    from comigs.app.join import Joined
    from comigs.track.tracker import Tracker

TITLES = {
    "joined": "from the run's generalists",
    "alone": "from nothing, to compare",
}


def join_command(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run.", callback=expanded)
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value ...]", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The newcomer's text (.txt) or chats (.jsonl), or a folder with one client.",
            callback=expanded,
        ),
    ] = None,
    specialists: Annotated[int, typer.Option(min=1, help="Its own experts.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Profile of its device (comigs devices).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of its runs; default runs/join-<time>.", callback=expanded),
    ] = None,
    log: LogAs = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Give a client that was not there a model of its own.

    It begins with the run's generalists, gets a specialist and a router of its own, and trains them
    all on its text as a client of that run does, until validation gets no better. A second run that
    begins with nothing shows what the generalists are worth. Both are run folders: comigs generate,
    export, eval and report take them. The same command with the same --out goes on after Ctrl-C.

    \b
    comigs join runs/my-run --data new.txt
    comigs join runs/my-run --data new.txt --device laptop rounds=5
    """
    from comigs.app.join import join

    folder = out or Path("runs") / f"join-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        check_shown(log, quiet)
        if data is None:
            raise BadInput("--data is missing; give the newcomer's text")
        row = join(
            run_folder,
            data,
            folder,
            settings or [],
            specialists=specialists,
            device=device,
            following=partial(_shown, log, quiet),
        )
    except KeyboardInterrupt:
        typer.echo(
            f"\ninterrupted; the same command with --out {folder} goes on from the last round",
            err=True,
        )
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)
    if quiet:
        typer.echo(folder / "joined")
    elif log == "json":
        typer.echo(to_json({"event": "newcomer", **asdict(row)}))
    else:
        show(row, folder)


@contextmanager
def _shown(log: Log | None, quiet: bool, name: str) -> "Iterator[Sequence[Tracker]]":
    if not quiet and log != "json":
        Console().print(f"[bold]{name}[/bold]: {TITLES[name]}")
    with shown(log, quiet) as progress:
        yield [progress]


def show(row: "Joined", folder: Path) -> None:
    """Print what the newcomer has, and where its model is."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("newcomer", overflow="ellipsis")
    for name in ("base", "generalist", "alone", "joined", "against alone"):
        table.add_column(name, justify="right", no_wrap=True)
    numbers = [row.base, row.generalist, row.alone, row.joined]
    gain = f"{row.joined / row.alone - 1:+.1%}"
    table.add_row(escape(row.name), *(f"{value:.4g}" for value in numbers), gain)
    console.print(table)
    console.print(
        "Test perplexity, lower is better. generalist: the run's, as it came; alone: as many "
        "experts, begun with nothing; joined: begun with the run's generalists."
    )
    console.print(escape(f"comigs generate {folder / 'joined'} --client 0 ..."))
