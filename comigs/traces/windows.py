"""When devices are there (charging and idle), as windows of whole simulated seconds in JSON.

    {"period": 604800, "devices": {"anna's phone": [[79200, 108000], [165600, 194400]]}}

Second 0 is a midnight; after `period` seconds everything begins again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from comigs.errors import BadInput
from comigs.store.plain import MIB, read_plain
from comigs.store.strict import from_json
from comigs.store.whole import write_whole

HOUR, DAY = 3600, 86400
LONGEST = 366 * DAY
LIMIT = 1024 * MIB  # most bytes of a file

Window = tuple[int, int]  # from the first second on, up to before the last


@dataclass(frozen=True)
class Traces:
    """When each device is there.

    Attributes:
        period: seconds, after which everything begins again.
        devices: by name, windows within [0, period], in order and apart.
    """

    period: int
    devices: dict[str, list[Window]]


def joined(windows: Iterable[Window], period: int) -> list[Window]:
    """Windows as `Traces` has them: those that touch are one, those past the end begin anew."""
    cut = []
    for start, end in windows:
        start, end = start % period, start % period + min(end - start, period)
        cut += [(start, min(end, period)), (0, end - period)]
    found: list[Window] = []
    for start, end in sorted(window for window in cut if window[0] < window[1]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def read_traces(path: Path) -> Traces:
    """The traces in a file.

    Raises:
        BadInput: the file is missing or holds something else; which device, and what.
    """
    tree = read_json(path)
    period, devices = tree.get("period"), tree.get("devices")
    if not _whole(period) or not 0 < period <= LONGEST or not isinstance(devices, dict):
        raise BadInput(
            f"{path} holds no traces: it needs a period of 1 to {LONGEST} whole seconds, and "
            "devices; make one with comigs devices traces"
        )
    found = {}
    for name, windows in devices.items():
        if not isinstance(windows, list) or not all(_window(each, period) for each in windows):
            raise BadInput(
                f"{path}: device {name!r} needs a list of [start, end] in whole seconds, start "
                f"before end, from 0 to {period}"
            )
        found[name] = joined(map(tuple, windows), period)
    if not any(found.values()):
        raise BadInput(f"{path}: no device is ever there; give at least one a window")
    return Traces(period, found)


def write_traces(traces: Traces, path: Path) -> None:
    """Write them, a device a line."""
    lines = (f"{json.dumps(name)}: {json.dumps(w)}" for name, w in traces.devices.items())
    text = ",\n".join(lines)
    write_whole(path, f'{{"period": {traces.period}, "devices": {{\n{text}\n}}}}\n')


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Raises:
        BadInput: it holds none, or cannot be read.
    """
    try:
        data = read_plain(path, path.parent, LIMIT)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith(b"\x80"):
        raise BadInput(f"{path} is a pickle, which could run anything; write it as JSON first")
    try:
        tree = from_json(data)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise BadInput(f"{path} is not an object in JSON")
    return tree


def share_by_hour(traces: Traces) -> list[float]:
    """Share of the devices that is there, on average, in each hour of the day."""
    change = np.zeros(traces.period + 1, dtype=np.int64)
    for windows in traces.devices.values():
        for start, end in windows:
            change[start] += 1
            change[end] -= 1
    hours = np.arange(traces.period) // HOUR % 24
    seconds = np.bincount(hours, minlength=24)
    there = np.bincount(hours, weights=change[:-1].cumsum(), minlength=24)
    return [float(share) for share in there / np.maximum(seconds, 1) / len(traces.devices)]


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _window(value: Any, period: int) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(_whole, value))
    return pair and 0 <= value[0] < value[1] <= period
