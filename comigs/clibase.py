"""What the commands have in common."""

from typing import Annotated, NoReturn

import typer

from comigs.errors import ComigsError

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def fail(error: ComigsError, debug: bool) -> NoReturn:
    """End the command with one line and the error's exit code."""
    if debug:
        raise error
    typer.echo(f"comigs: {error}", err=True)
    raise typer.Exit(error.exit_code)
