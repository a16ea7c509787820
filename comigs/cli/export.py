"""`comigs export`: what one takes away of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Debug, expanded, fail
from comigs.errors import ComigsError


def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)],
    to: Annotated[Path, typer.Option(help="Folder to write; must not exist.", callback=expanded)],
    client: Annotated[int, typer.Option(help="Whose experts, from 0.")] = 0,
    generalist_only: Annotated[
        bool, typer.Option("--generalist-only", help="Only the shared experts.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write one client's experts as plain PEFT adapters, and its routers."""
    from comigs.config.load import read_config

    try:
        read_config(run_folder)

        from comigs.export.client import export_experts

        export_experts(run_folder, client, to, generalist_only)
    except ComigsError as error:
        fail(error, debug)
    typer.echo(f"wrote {to}")
