"""`comigs report`, a page about runs with test text token by token; `comigs watch`, live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comigs.cli.base import Debug, LogAs, Quiet, expanded, fail
from comigs.errors import ComigsError

if TYPE_CHECKING:
    from comigs.report.page.alike import Alike
    from comigs.report.page.tokens import Looks


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", callback=expanded)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; default report.html in the run's folder, and of several runs "
            "report-with-<others>.html in the first one's.",
            callback=expanded,
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(min=0, max=2048, help="Tokens of test text of each client to show; 0: none."),
    ] = 256,
    device: Annotated[
        str, typer.Option(help="Where it reads them: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    debug: Debug = False,
) -> None:
    """Write one self-contained page about one or several runs.

    It holds how alike the clients' experts are, and test text of the clients with who carried each
    token; --tokens 0 leaves the text out.

    \b
    comigs report runs/mine
    comigs report runs/mine runs/alone --out both.html
    """
    from comigs.report.page import write_report
    from comigs.store.whole import check_place

    try:
        if out:
            check_place(out)
        alike, looks = _opened(runs, tokens, device)
        path = write_report(runs, out, looks, alike)
    except ComigsError as error:
        fail(error, debug)
    typer.echo(f"wrote {path}")
    for reason in looks.missing if looks else ():
        typer.echo(f"not shown token by token: {reason}", err=True)
    for reason in alike.missing:
        typer.echo(f"experts not compared: {reason}", err=True)
    if open_page:
        typer.launch(str(path))


def _opened(runs: list[Path], tokens: int, device: str) -> "tuple[Alike, Looks | None]":
    from comigs.report.page.run import load_run

    for folder in runs:
        load_run(folder)  # what is no run is refused before the models are opened

    from comigs.use.alike import compare_experts
    from comigs.use.looks import look_at

    return compare_experts(runs), look_at(runs, tokens, device) if tokens else None


def watch(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)],
    log: LogAs = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Follow a run from another terminal, to its end; of a finished one show how it went.

    \b
    comigs watch runs/mine
    """
    from comigs.store.metrics import final_rows
    from comigs.track.follow import follow
    from comigs.track.shown import shown

    try:
        with shown(log, quiet) as progress:
            for event in follow(run_folder, progress.note):
                progress.event(event)
    except KeyboardInterrupt:
        typer.echo("\nno longer watched; the run itself goes on", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)
    progress.table(final_rows(run_folder), run_folder)
