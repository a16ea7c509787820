"""What the commands have in common."""

import errno
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer
from typer.core import TyperGroup

from comigs.errors import BadInput, ComigsError
from comigs.store.plain import from_home
from comigs.track.shown import Log

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
LogAs = Annotated[
    Log | None,
    typer.Option(
        "--log",
        help="rich: bars; plain: lines; json: every event as a line on standard output. "
        "Default: rich on a terminal, else plain.",
        show_default=False,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Show nothing but errors, and at the end where it is.")
]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # nothing that another argument would change


def expanded(value: Any) -> Any:
    """Callback of options and arguments that are paths, or lists of them; see `from_home`."""
    try:
        if isinstance(value, list | tuple):
            return [from_home(each) for each in value]
        return value and from_home(value)
    except BadInput as error:
        fail(error, debug=False)


def fail(error: ComigsError, debug: bool) -> NoReturn:
    """End the command with one line and the error's exit code."""
    if debug:
        raise error
    line = str(error).encode("utf-8", "backslashreplace").decode()
    typer.echo(f"comigs: {line}", err=True)
    raise typer.Exit(error.exit_code)


def check_run(folder: Path) -> None:
    """Refuse what is no run folder, before the libraries are loaded that its models need."""
    from comigs.config.load import read_config

    read_config(folder)


def decoded(line: bytes) -> str:
    """A line of the standard input as text.

    Raises:
        BadInput: it is none.
    """
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise BadInput(f"the input is not UTF-8: {line[:60]!r}") from None


class Commands(TyperGroup):
    """Commands whose arguments are text, and whose paths give one line when they cannot be used."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for argument in args:
            if "\0" in argument or not _is_text(argument):
                shown = argument.encode("utf-8", "backslashreplace").decode()[:60]
                fail(BadInput(f"the argument {shown!r} is not text"), debug=False)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None or ctx.params.get("debug"):
                raise
            kind = ComigsError if error.errno in FULL else BadInput
            fail(kind(f"{str(error.filename)[:200]} cannot be used: {error.strerror}"), debug=False)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True


def split(settings: list[str]) -> tuple[str | None, list[str]]:
    """The configuration that comes first, if one does, and the settings behind it."""
    if "" in settings:
        fail(BadInput("an argument is empty; give a preset, a YAML file or key=value"), False)
    if settings and "=" not in settings[0]:
        return settings[0], settings[1:]
    return None, settings
