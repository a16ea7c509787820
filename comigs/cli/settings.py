"""`comigs settings`: every setting, what it may be, its default, and what it means."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.cli.base import Debug, fail
from comigs.errors import BadInput


def settings_command(
    key: Annotated[
        str | None, typer.Argument(help="A section, e.g. router, or a setting, e.g. router.every.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show every setting of a run: its default, what it may be, and what it means."""
    from comigs.config.settings import RunConfig
    from comigs.schema.build import suggest
    from comigs.schema.fields import settings_of

    settings = list(settings_of(RunConfig))
    chosen = [s for s in settings if not key or f"{s.key}.".startswith(f"{key}.")]
    if not chosen:
        known = dict.fromkeys(part for s in settings for part in (s.key, s.key.partition(".")[0]))
        hint = suggest(str(key), known) or "; see: comigs settings"
        fail(BadInput(f"there is no setting {key!r}{hint}"), debug)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it means")
    for setting in chosen:
        meaning = f"{escape(setting.text)}\n[dim]{escape(setting.kind)}[/dim]"
        table.add_row(setting.key, escape(setting.default), meaning)
    Console().print(table)
