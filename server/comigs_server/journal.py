"""metrics.jsonl: one event per line, appended as it happens and told to whoever watches."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comigs.errors import ComigsError
from comigs.store.metrics import damaged_lines, events_of
from comigs.store.strict import to_json
from comigs.store.whole import append, write_whole

PASSING = (  # told, but not kept
    *("waiting", "refused", "damaged lines"),
    *("round started", "evaluation started"),
)

Event = dict[str, Any]
Watcher = Callable[[Event], None]


class Journal:
    """Appends events to the run folder's metrics.jsonl.

    Args:
        folder: the run folder.
        watch: called with each event, e.g. to draw progress.
    """

    def __init__(self, folder: Path, watch: Watcher = lambda event: None) -> None:
        self.path, self.watch = folder / "metrics.jsonl", watch

    def write(self, event: str, **fields: Any) -> None:
        """Append one event and tell the watcher.

        Raises:
            ComigsError: when it cannot be written, e.g. because the disk is full.
        """
        record = {"event": event, **fields}
        with self._writing():
            append(self.path, to_json(record) + "\n")
        self.watch(record)

    def rewind(self, round_number: int) -> None:
        """Drop what was written after `round_number` was complete, before redoing it.

        Events without a round belong to the final evaluation and the end: they come again. A file
        with damaged lines is kept beside it.
        """
        folder = self.path.parent
        kept = [e for e in events_of(folder) if e.get("round", math.inf) <= round_number]
        damaged = damaged_lines(folder)
        with self._writing():
            if damaged:
                aside = folder / f"metrics.damaged.{round_number}.jsonl"
                write_whole(aside, self.path.read_bytes())
                self.watch({"event": "damaged lines", "lines": damaged, "kept": str(aside)})
            write_whole(self.path, "".join(to_json(e) + "\n" for e in kept))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise ComigsError(f"{self.path} could not be written: {reason}") from error
