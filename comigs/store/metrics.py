"""The events of a run folder, and the final table, from its metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from comigs.store.chosen import RoundChosen
from comigs.store.eventjson import from_line, to_object
from comigs.store.events import Evaluated, Event
from comigs.store.plain import MIB, read_plain

METRICS = "metrics.jsonl"
MOST = 4096 * MIB  # bytes


class Line(NamedTuple):
    """One line, without its end; None for one that holds no event."""

    text: bytes
    event: Event | None


def lines_of(folder: Path) -> list[Line]:
    """The lines of metrics.jsonl; a last one that a kill cut off is none: its event comes again."""
    path = folder / METRICS
    if not path.exists():
        return []
    *whole, last = read_plain(path, folder, MOST).split(b"\n")
    lines = [Line(text, from_line(text)) for text in whole]
    return lines + ([Line(last, event)] if (event := from_line(last)) else [])


def events_of(folder: Path) -> list[Event]:
    """Events of a run; lines that cannot be read are left out (`damaged_lines`)."""
    return events_and_damage(folder)[0]


def damaged_lines(folder: Path) -> list[int]:
    """Numbers, from 1, of the lines of metrics.jsonl that hold no event."""
    return events_and_damage(folder)[1]


def events_and_damage(folder: Path) -> tuple[list[Event], list[int]]:
    """`events_of` and `damaged_lines`, of one reading."""
    lines = lines_of(folder)
    damaged = [number for number, line in enumerate(lines, 1) if line.event is None]
    return [line.event for line in lines if line.event is not None], damaged


def final_rows(folder: Path) -> list[dict[str, Any]]:
    """One row per test stream, in the clients' order; [] for a run that is not finished."""
    return rows_of(events_of(folder))


def rows_of(events: Iterable[Event]) -> list[dict[str, Any]]:
    """`final_rows` of a run with these events."""
    tested = [event for event in events if isinstance(event, Evaluated)]
    return [to_object(row) for row in sorted(tested, key=lambda row: (row.client, row.name))]


def chosen_round(folder: Path) -> RoundChosen | None:
    """Which round of a run with `stop` was tested; None before, and for any other run."""
    events = reversed(events_of(folder))
    return next((event for event in events if isinstance(event, RoundChosen)), None)


def gain(row: Mapping[str, Any]) -> float | None:
    """How many times lower a client's perplexity has become; None where that is no number."""
    before, after = row.get("pretrained"), row.get("after")
    if not before or not after or not math.isfinite(before) or math.isnan(after):
        return None
    return float(before / after)
