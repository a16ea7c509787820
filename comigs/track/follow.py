"""The events of a run that another process writes, as they come."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from comigs.errors import BadInput
from comigs.store.events import Ended, EvaluationStarted, Event, RoundDone, RoundStarted, Started
from comigs.store.metrics import METRICS, lines_of

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
    told: list[bytes] = []
    state, since, size = Clients(), 0.0, -1
    while True:
        _check(folder)
        path = folder / METRICS
        now = path.stat().st_size if path.exists() else 0
        if now != size:
            size, since = now, 0.0
            lines = lines_of(folder)
            texts = [line.text for line in lines]
            for line in lines[_common(told, texts) :]:  # a resumed run drops the last ones
                if line.event is not None:
                    yield line.event
                    yield from state.after(line.event)
            told = texts
            if lines and isinstance(lines[-1].event, Ended):
                return
            if not lines:
                say(f"waiting for {folder} to begin; Ctrl-C ends the waiting")
        sleep(EVERY)
        since += EVERY
        if since == QUIET and told:
            say(
                f"no news for {QUIET:.0f} s; if it was stopped: comigs run --resume {folder}; "
                "Ctrl-C ends the waiting"
            )


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


def _common(old: list[bytes], new: list[bytes]) -> int:
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
