"""The final table of a run, from its metrics.jsonl."""

import math
from pathlib import Path
from typing import Any

from comigs.store.plain import MIB, read_plain
from comigs.store.strict import from_json

METRICS = "metrics.jsonl"
MOST = 4096 * MIB  # bytes


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Events of a run; lines that cannot be read are left out (`damaged_lines`)."""
    return [event for event in _lines(folder) if event is not None]


def damaged_lines(folder: Path) -> list[int]:
    """Numbers, from 1, of the lines of metrics.jsonl that hold no event.

    A last line that a kill cut off is none: its event comes again.
    """
    lines = _lines(folder)
    return [number for number, event in enumerate(lines, 1) if event is None]


def _lines(folder: Path) -> list[dict[str, Any] | None]:
    path = folder / METRICS
    if not path.exists():
        return []
    *lines, last = read_plain(path, folder, MOST).split(b"\n")
    return [_event(line) for line in lines] + ([event] if (event := _event(last)) else [])


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = from_json(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def final_rows(folder: Path) -> list[dict[str, Any]]:
    """One row per client of a finished run, in the clients' order; [] if it is not finished."""
    rows = [e for e in events_of(folder) if e["event"] == "final"]
    return sorted(rows, key=lambda row: (row["client"], row["name"]))


def gain(row: dict[str, Any]) -> float | None:
    """How many times lower a client's perplexity has become; None where that is no number."""
    before, after = row.get("pretrained"), row.get("after")
    if not before or not after or not math.isfinite(before) or math.isnan(after):
        return None
    return float(before / after)
