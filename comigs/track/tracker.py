"""Trackers follow a run live: one file here for each, which defines `TRACKER`."""

import difflib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import comigs.track
from comigs.config.settings import RunConfig
from comigs.errors import BadInput, one_line
from comigs.schema.byfile import members_of, part_of
from comigs.store.events import Event

# files here that are none
HOUSE = ("tracker", "scalars", "progress", "shown", "notebook", "steps", "follow")


class Tracker(Protocol):
    """Three hooks of a run. What one raises is told once, and the run goes on without it."""

    def start(self, config: RunConfig, folder: Path) -> None:
        """Before anything is trained.

        Args:
            config: of the run, resolved.
            folder: the run folder; metrics.jsonl holds what an interrupted run has done so far.
        """

    def event(self, event: Event) -> str | None:
        """Something has happened. Returns why the run should stop after this round, or None."""

    def end(self, finished: bool) -> None:
        """Nothing more comes; `finished` unless the run failed or was interrupted."""


def tracker_names() -> list[str]:
    """What `log.trackers` may hold."""
    return list(members_of(comigs.track, HOUSE))


def find_trackers(config: RunConfig) -> list[Tracker]:
    """The trackers that `log` asks for.

    Raises:
        BadInput: one is unknown, or its package is not installed.
    """
    names = ["tensorboard"] if config.log.tensorboard else []
    return [_find(name)() for name in dict.fromkeys([*names, *(config.log.trackers or [])])]


def _find(name: str) -> Callable[[], Tracker]:
    if name not in (known := members_of(comigs.track, HOUSE)):
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise BadInput(f"log.trackers has {name!r}; {hint}")
    try:
        made: Callable[[], Tracker] = part_of(known[name](), "TRACKER")
    except ImportError as error:
        raise BadInput(
            f"log.trackers has {name!r}, which needs its package ({error}): "
            f"pip install 'comigs[{name}]'"
        ) from None
    return made


class Trackers:
    """Several trackers as one; what stops one of them stops none of the others."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._live = list(trackers)

    def start(self, config: RunConfig, folder: Path) -> None:
        """Start all.

        Raises:
            BadInput: one cannot work in this folder.
        """
        for tracker in list(self._live):
            self._try(tracker, partial(tracker.start, config, folder))

    def event(self, event: Event) -> str | None:
        reasons = [self._try(t, partial(t.event, event)) for t in list(self._live)]
        return next((reason for reason in reasons if reason), None)

    def end(self, finished: bool) -> None:
        for tracker in list(self._live):
            self._try(tracker, partial(tracker.end, finished))

    def _try(self, tracker: Tracker, hook: Callable[[], str | None]) -> str | None:
        try:
            return hook()
        except BadInput:
            raise
        except Exception as error:  # of another's code: it must not cost the run
            self._live.remove(tracker)
            logging.getLogger("comigs").warning(
                "tracker %s broke and is left out: %s", type(tracker).__name__, one_line(error)
            )
            return None
