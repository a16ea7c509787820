"""What runs are called on one page: by what differs between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from comigs.report.page.run import Run

FIRST = ("method", "seed")
HOW = ("name", "log.", "engine.", "ray.", "flower.", "threads", "extended")  # it was run, not what
MOST, LONGEST = 2, 32  # other settings of a label, characters of a value


def labelled(runs: Sequence[Run], differences: Mapping[str, Sequence[Any]]) -> list[Run]:
    """The runs under names that differ: their settings that do, with their folders if need be.

    Where many settings differ, only method and seed are in a name.

    Args:
        differences: by dotted setting, the value that each run has.
    """
    keys = [key for key in FIRST if key in differences]
    others = [key for key in differences if not key.startswith(HOW) and key not in FIRST]
    keys += others if len(others) <= MOST else []
    names = [
        ", ".join(f"{key}={_shown(differences[key][i])}" for key in keys)
        if run.config
        else run.label
        for i, run in enumerate(runs)
    ]
    for told in ("", *zip(*[(run.label, str(run.folder)) for run in runs], strict=True)):
        labels = [_both(name, told[i] if told else "") for i, name in enumerate(names)]
        if all(labels) and len(set(labels)) == len(labels):
            break
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def other_data(runs: Sequence[Run], differences: Mapping[str, Sequence[Any]]) -> list[str]:
    """In what the data of runs differ, as far as their folders tell."""
    found = [key for key in differences if key.startswith("data.")]
    rows = [run.rows for run in runs if run.rows]
    if len({tuple(sorted(row["name"] for row in each)) for each in rows}) > 1:
        found.append("the clients")
    texts: dict[str, set[int]] = {}
    for row in (row for each in rows for row in each):
        texts.setdefault(row["name"], set()).add(row["test_tokens"])
    if any(len(lengths) > 1 for lengths in texts.values()):
        found.append("the length of the test text")
    return found


def _both(name: str, folder: str) -> str:
    return f"{name} ({folder})" if name and folder and name != folder else name or folder


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).split("\n")[0]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
