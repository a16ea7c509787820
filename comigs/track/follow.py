"""The events of a run that another process writes, as they come."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from comigs.errors import BadInput
from comigs.store.eventjson import from_line
from comigs.store.events import Ended, Event, RoundDone, Started
from comigs.store.metrics import METRICS, MOST
from comigs.store.passing import EvaluationStarted, RoundStarted
from comigs.store.plain import read_plain

EVERY = 0.5  # seconds between two looks
QUIET = 120.0  # seconds without news after which it is said


def follow(
    folder: Path, say: Callable[[str], object], sleep: Callable[[float], object] = time.sleep
) -> Iterator[Event]:
    """Every event of the run, from its first to its end.

    Which clients are at work is not written down: after each round `RoundStarted` comes for as many
    as took part, at last `EvaluationStarted`.

    Args:
        say: is told what there is to wait for.
        sleep: between two looks.

    Raises:
        BadInput: the folder is that of something else.
    """
    written, clients = _Written(folder), Clients()
    since, begun, over = 0.0, False, False
    if not written.begun:
        _check(folder)
        say(f"waiting for {folder} to begin; Ctrl-C ends the waiting")
    while not over:
        _check(folder)
        for event in written.new():
            begun, since = True, 0.0
            over = isinstance(event, Ended)
            yield event
            yield from clients.after(event)
        if not over:
            sleep(EVERY)
        since += EVERY
        if since == QUIET and begun:
            say(
                f"no news for {QUIET:.0f} s; if it was stopped: comigs run --resume {folder}; "
                "Ctrl-C ends the waiting"
            )


class _Written:
    """What another process appends to metrics.jsonl; when it goes on, it may write the file anew,
    without its last lines."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / METRICS
        self._told: list[int] = []  # hashes of lines
        self._file, self._end = -1, 0

    @property
    def begun(self) -> bool:
        return self._path.exists() and self._path.stat().st_size > 0

    def new(self) -> Iterator[Event]:
        """The events since the last call."""
        if not self._path.exists():
            return
        now = self._path.stat()
        if now.st_ino == self._file and now.st_size == self._end:
            return
        if now.st_ino != self._file or now.st_size < self._end:
            text, self._end = read_plain(self._path, self._folder, MOST), 0
        else:
            with open(self._path, "rb") as file:
                file.seek(self._end)
                text = file.read()
        *lines, rest = text.split(b"\n")  # the rest is not whole yet
        again = self._end == 0
        self._file, self._end = now.st_ino, self._end + len(text) - len(rest)
        hashes = [hash(line) for line in lines]
        known = _common(self._told, hashes) if again else 0
        self._told = hashes if again else self._told + hashes
        for line in lines[known:]:
            if (event := from_line(line)) is not None:
                yield event


class Clients:
    """How many clients there are to wait for."""

    def __init__(self) -> None:
        self._clients = self._rounds = 0

    def after(self, event: Event) -> Iterator[Event]:
        """What begins when `event` is over."""
        if isinstance(event, Started):
            self._clients, self._rounds = len(event.clients), event.rounds
        elif isinstance(event, RoundDone):
            if event.round < self._rounds:
                self._clients = event.clients or self._clients
        else:
            return
        if event.round < self._rounds:
            yield RoundStarted(event.round + 1, self._clients)
        else:
            yield EvaluationStarted(self._clients)


def _common(old: Sequence[int], new: Sequence[int]) -> int:
    """How many lines both begin with."""
    pairs = enumerate(zip(old, new, strict=False))
    shorter = min(len(old), len(new))
    return next((number for number, (one, other) in pairs if one != other), shorter)


def _check(folder: Path) -> None:
    if folder.is_dir():
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if names and not names & {"config.yaml", "origin.json", "identity.json", METRICS}:
            raise BadInput(f"{folder} is not a run folder: it holds no config.yaml")
    elif folder.exists():
        raise BadInput(f"{folder} is a file; give a run folder")
