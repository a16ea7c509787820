"""The final table of a run, from its metrics.jsonl."""

import json
from pathlib import Path
from typing import Any


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Events of a run; a last line cut off by a kill is left out."""
    events = []
    path = folder / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def final_rows(folder: Path) -> list[dict[str, Any]]:
    """One row per client of a finished run, in the clients' order; [] if it is not finished."""
    rows = [e for e in events_of(folder) if e["event"] == "final"]
    return sorted(rows, key=lambda row: (row["client"], row["name"]))
