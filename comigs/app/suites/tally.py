"""How far many runs are: a bar on a terminal, lines, lines of JSON, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from comigs.store.strict import to_json
from comigs.track.shown import Log, check_shown

Done = Callable[[str, str | None], None]  # which run, and its error if it failed


class Tally:
    """Shows the runs of a suite or a sweep.

    Args:
        log: None: a bar on a terminal, lines elsewhere.
        quiet: nothing on the way.

    Raises:
        BadInput: both are given.
    """

    def __init__(self, log: Log | None = None, quiet: bool = False) -> None:
        check_shown(log, quiet)
        self._json, self._quiet = log == "json", quiet
        self._console = Console(
            stderr=True,
            force_terminal=None if log is None else log == "rich",
            quiet=quiet or self._json,
        )

    def say(self, text: str) -> None:
        self._console.print(text)

    def result(self, what: RenderableType) -> None:
        """Print what came out to standard output, unless that is for programs."""
        if not (self._json or self._quiet):
            Console().print(what, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def over(self, total: int) -> Iterator[Done]:
        """Show `total` runs; gives what is to be told of each that is over."""
        bars = Progress(
            TextColumn("[bold]runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal or self._console.quiet,
        )
        task, count = bars.add_task("", total=total), 0

        def done(label: str, error: str | None) -> None:
            nonlocal count
            count += 1
            if self._json:
                told = {"event": "suite run", "run": label, "done": count, "of": total}
                print(to_json(told | ({"error": error} if error else {})), flush=True)
            elif error:
                self._console.print(f"[red]{label} failed:[/red] {error}", highlight=False)
            else:
                self._console.print(f"{count}/{total} {label}", highlight=False)
            bars.update(task, advance=1, description=label)

        with bars:
            yield done
