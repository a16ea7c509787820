"""Tables on narrow terminals: columns are left out, numbers are never cut."""

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

NAMES = 12  # characters of the first column that must have room; the rest of it may be cut


def fitting(
    build: Callable[[Sequence[str]], Table],
    columns: Sequence[str],
    expendable: Iterable[str],
    console: Console,
) -> Table:
    """The table with as many columns as the console has room for, and a note of the others.

    Args:
        build: makes the table with these of the columns, behind a first one of names.
        expendable: columns to leave out, in this order.
    """
    shown, rest = list(columns), list(expendable)
    while _width(build(shown), console) > console.width and rest:
        shown.remove(rest.pop(0))
    table = build(shown)
    table.columns[0].max_width = NAMES + max(0, console.width - _width(build(shown), console))
    if hidden := [name for name in columns if name not in shown]:
        table.caption = f"on a wider terminal also: {', '.join(hidden)}"
        table.caption_justify = "left"
    return table


def _width(table: Table, console: Console) -> int:
    """What the table needs, whatever its title does."""
    table.title, table.columns[0].max_width = None, NAMES
    return table.__rich_measure__(console, console.options.update(width=10_000)).maximum
