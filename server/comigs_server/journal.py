"""metrics.jsonl: one event per line, appended as it happens and told to whoever watches."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from comigs.errors import ComigsError, flat
from comigs.store.eventjson import to_line
from comigs.store.events import Event, Failed, Kept, Passing
from comigs.store.metrics import METRICS, lines_of
from comigs.store.passing import LinesDamaged
from comigs.store.whole import append, write_whole

Watcher = Callable[[Event], str | None]  # returns why the run should stop, or None


class Journal:
    """Appends events to the run folder's metrics.jsonl.

    Args:
        folder: the run folder.
        watch: called with each event, e.g. to draw progress.

    Attributes:
        stop: why a watcher wants the run to stop; empty while it may go on.
    """

    def __init__(self, folder: Path, watch: Watcher = lambda event: None) -> None:
        self.path, self._watch, self.stop = folder / METRICS, watch, ""
        self._failed: Failed | None = None

    def write(self, event: Kept) -> None:
        """Append one event and tell it.

        Raises:
            ComigsError: when it cannot be written, e.g. because the disk is full.
        """
        with self._writing():
            append(self.path, to_line(event))
        if isinstance(event, Failed):
            self._failed = event
        self._show(event)

    def why(self, number: int | None) -> str:
        """Who failed last and why, in brackets, if it was in this round; None: in the test."""
        failed = self._failed
        if failed is None or failed.round != number:
            return ""
        return f" ({failed.name}: {flat(failed.reason)})"

    def tell(self, event: Passing) -> None:
        """Tell an event that is not kept."""
        self._show(event)

    def rewind(self, round_number: int) -> None:
        """Drop what was written after `round_number` was complete, before redoing it.

        Events without a round belong to the final evaluation and the end: they come again. A file
        with damaged lines is kept beside it.
        """
        lines = lines_of(self.path.parent)
        kept = [
            line.text + b"\n"
            for line in lines
            if line.event and _round_of(line.event) <= round_number
        ]
        damaged = [number for number, line in enumerate(lines, 1) if not line.event]
        with self._writing():
            if damaged:
                aside = self.path.with_name(f"metrics.damaged.{round_number}.jsonl")
                write_whole(aside, self.path.read_bytes())
                self.tell(LinesDamaged(damaged, str(aside)))
            write_whole(self.path, b"".join(kept))

    def _show(self, event: Event) -> None:
        self.stop = self.stop or self._watch(event) or ""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise ComigsError(f"{self.path} could not be written: {reason}") from error


def _round_of(event: Event) -> float:
    number = getattr(event, "round", None)
    return math.inf if number is None else number
