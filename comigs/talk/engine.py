"""One thread that writes for everybody: requests of all voices join its batches between steps."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from comigs.errors import ComigsError, one_line
from comigs.talk.batch import Batch, Prompt, Reason, Row

log = logging.getLogger("comigs")
Ending = Reason | Literal["timeout"]


class Full(ComigsError):
    """More wait than the engine takes."""


@dataclass(frozen=True)
class Said:
    """A piece of what is written for a request.

    Attributes:
        text: what is new; may be "".
        ending: why it was the last piece; None while more follows.
        tokens: written so far.
    """

    text: str
    ending: Ending | None
    tokens: int


@dataclass(eq=False)
class Request:
    """A prompt with whoever listens to what is written.

    Attributes:
        batch: the number of the batch that its voice belongs to.
        hear: called in the engine's thread with every piece; it must return at once.
        gone: set by whoever asked, once it no longer listens.
    """

    batch: int
    prompt: Prompt
    hear: Callable[[Said], None]
    gone: bool = False
    until: float = 0.0
    row: Row | None = field(default=None, repr=False)

    def say(self, text: str, ending: Ending | None) -> None:
        """Tell whoever listens."""
        self.hear(Said(text, ending, self.row.written if self.row else 0))


class Engine:
    """Writes for requests in the order in which they come, as many at once as there are rows.

    Attributes:
        steps: passes through the base so far.
        tokens: written so far.
    """

    def __init__(
        self, batches: Sequence[Batch], rows: int = 16, waiting: int = 64, seconds: float = 300
    ) -> None:
        """Start the thread.

        Args:
            batches: one for each base.
            rows: requests written for at once, in each batch.
            waiting: requests that may wait for a row.
            seconds: a request's time, with what it waits.
        """
        self._batches, self._rows, self._most, self._seconds = batches, rows, waiting, seconds
        self._waiting: deque[Request] = deque()
        self._active: list[list[Request]] = [[] for _ in batches]
        self._changed = threading.Condition()
        self._closed = False
        self.steps = self.tokens = 0
        self._thread = threading.Thread(target=self._run, name="comigs-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a row."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Requests that are written for."""
        return sum(map(len, self._active))

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests, all or none.

        Raises:
            Full: too many wait.
        """
        with self._changed:
            if self._closed or len(self._waiting) + len(requests) > self._most:
                raise Full(f"{len(self._waiting)} requests wait already; ask again later")
            for request in requests:
                request.until = time.monotonic() + self._seconds
                self._waiting.append(request)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what is under way ends with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._waiting and not any(self._active):
                    self._changed.wait()
                if self._closed:
                    break
                new = self._admit()
            for number, batch in enumerate(self._batches):
                try:
                    self._advance(number, batch, [r for r in new if r.batch == number])
                except Exception as error:  # the others go on, and so does the server
                    log.exception("a step of the server failed: %s", one_line(error))
                    batch.drop(batch.rows)
                    self._end(number, "error")
        for number in range(len(self._batches)):
            self._end(number, "error")
        for request in self._waiting:
            request.say("", "error")
        self._waiting.clear()

    def _admit(self) -> list[Request]:
        """Those that wait and find a row; who no longer listens, or has no time, is let go."""
        free = [self._rows - len(active) for active in self._active]
        new: list[Request] = []
        stay: deque[Request] = deque()
        for request in self._waiting:
            if request.gone:
                continue
            if time.monotonic() > request.until:
                request.say("", "timeout")
            elif free[request.batch] > 0:
                free[request.batch] -= 1
                new.append(request)
            else:
                stay.append(request)
        self._waiting = stay
        for request in new:
            self._active[request.batch].append(request)
        return new

    def _advance(self, number: int, batch: Batch, new: Sequence[Request]) -> None:
        """Let go, write one token for each that is under way, and read what is new."""
        active = self._active[number]
        gone = [r for r in active if r.row and (r.gone or time.monotonic() > r.until)]
        batch.drop(r.row for r in gone if r.row)
        for request in gone:
            request.say("", "timeout")
        active = [r for r in active if r not in gone]
        by_row = {id(request.row): request for request in active if request.row}
        said = []
        if batch.rows:
            said += batch.step()
            self.steps += 1
        if new:
            first = batch.join([request.prompt for request in new])
            self.steps += 1
            for request, (row, _) in zip(new, first, strict=True):
                request.row = row
                by_row[id(row)] = request
            said += first
        for row, text in said:
            self.tokens += 1
            if text or row.reason:
                by_row[id(row)].say(text, row.reason)
        self._active[number] = [r for r in active if r.row and not r.row.reason]

    def _end(self, number: int, why: Ending) -> None:
        active, self._active[number] = self._active[number], []
        for request in active:
            request.say("", why)
