"""How a command shows a run: bars, lines of text, lines of JSON, or only where it is."""

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from comigs.errors import BadInput
from comigs.store.eventjson import to_line
from comigs.store.events import Event
from comigs.store.passing import FolderMade

if TYPE_CHECKING:
    from comigs.config.settings import RunConfig

Log = Literal["rich", "plain", "json"]


class Shown(Protocol):
    """A tracker that shows a run as long as it is entered.

    Attributes:
        folder: the run folder, once the run has one.
    """

    folder: str | None

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def start(self, config: "RunConfig", folder: Path) -> None: ...
    def event(self, event: Event) -> str | None: ...
    def end(self, finished: bool) -> None: ...
    def note(self, text: str) -> None:
        """Show what is no event."""

    def table(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Show what came out."""


class Bare:
    """For programs: every event as a line of JSON, or nothing but the run folder at the end."""

    def __init__(self, events: bool) -> None:
        self._events = events
        self.folder: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, config: "RunConfig", folder: Path) -> None:
        pass

    def event(self, event: Event) -> None:
        if isinstance(event, FolderMade):
            self.folder = event.folder
        if self._events:
            sys.stdout.write(to_line(event))
            sys.stdout.flush()

    def end(self, finished: bool) -> None:
        pass

    def note(self, text: str) -> None:
        if self._events:
            print(text, file=sys.stderr)

    def table(self, rows: list[dict[str, Any]], folder: Path) -> None:
        if not self._events:
            print(folder)


def check_shown(log: Log | None, quiet: bool) -> None:
    """Refuse two ways to show a run at once.

    Raises:
        BadInput: both are given.
    """
    if log and quiet:
        raise BadInput(f"--log is {log}, and --quiet is given; give one of them")


def shown(log: Log | None = None, quiet: bool = False) -> Shown:
    """What shows a run in this way.

    Args:
        log: None: bars on a terminal, lines elsewhere.

    Raises:
        BadInput: as `check_shown`.
    """
    from comigs.track.progress import Progress

    check_shown(log, quiet)
    if quiet or log == "json":
        return Bare(events=not quiet)
    return Progress(live=None if log is None else log == "rich")
