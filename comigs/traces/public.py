"""Traces that others have published, in their own formats: FLASH's and FedScale's, as JSON.

FLASH (WWW'21): {device: {"messages": "2020-01-31 22:14:03\\tscreen_lock\\n..."}}. A device is there
while it charges, is locked and has Wi-Fi, as FLASH itself takes it.
FedScale (ICML'22): {device: {"active": [12788, ...], "inactive": [65881, ...], "finish_time":
518400}}: there from each `active` up to its `inactive`, again after `finish_time` seconds. It is
published as a pickle, which is refused here.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from comigs.errors import BadInput
from comigs.traces.windows import DAY, LONGEST, Traces, Window, joined, read_json

SWITCHES = {  # FLASH's messages: what they turn on or off
    "battery_charged_on": ("charging", True),
    "battery_charged_off": ("charging", False),
    "screen_lock": ("locked", True),
    "screen_unlock": ("locked", False),
    "wifi": ("wifi", True),
    **dict.fromkeys(("2g", "3g", "4g", "5g", "unknown"), ("wifi", False)),
}
SAYS_NOTHING = ("screen_on", "screen_off")  # and the level of the battery, "57.0%"
Own = tuple[int, list[Window]]  # a device's period, and its windows


def read_public(path: Path) -> Traces:
    """Traces as FLASH or FedScale publish them.

    A device whose trace is shorter than the longest is there again and again until its end.

    Raises:
        BadInput: the file holds something else; which device, and what of it.
    """
    found: dict[str, Own] = {}
    for name, told in read_json(path).items():
        where = f"{path}: device {name!r}"
        if isinstance(told, dict) and isinstance(told.get("messages"), str):
            found[name] = _of_flash(told["messages"], where)
        elif isinstance(told, dict) and "active" in told:
            found[name] = _of_fedscale(told, where)
        else:
            raise BadInput(f"{where} has neither FLASH's messages nor FedScale's active")
    if not any(windows for _, windows in found.values()):
        raise BadInput(f"{path}: no device is ever there")
    period = max(own for own, _ in found.values())
    return Traces(period, {name: _repeated(*each, period) for name, each in found.items()})


def _of_flash(messages: str, where: str) -> Own:
    """From midnight of the device's first day, for whole days."""
    lines = (line for line in messages.splitlines() if line.strip())
    said = sorted((_message(line, where) for line in lines), key=lambda each: each[0])
    if not said:
        return DAY, []
    midnight = said[0][0].replace(hour=0, minute=0, second=0)
    on = dict.fromkeys(("charging", "locked", "wifi"), False)
    windows, since = [], None
    for moment, state in said:
        second = round((moment - midnight).total_seconds())
        if state in SWITCHES:
            what, value = SWITCHES[state]
            on[what] = value
        if all(on.values()) and since is None:
            since = second
        elif since is not None and not all(on.values()):
            windows.append((since, second))
            since = None
    return _checked(-(-max(1, second) // DAY) * DAY, where), windows


def _message(line: str, where: str) -> tuple[datetime, str]:
    moment, _, state = line.strip().partition("\t")
    state = state.strip().lower()
    try:
        when = datetime.strptime(moment.strip(), "%Y-%m-%d %H:%M:%S")
    except ValueError:
        raise BadInput(f"{where}: {line[:60]!r} begins with no time as FLASH writes it") from None
    if state not in SWITCHES and state not in SAYS_NOTHING and not state.endswith("%"):
        raise BadInput(f"{where}: {state[:60]!r} is none of FLASH's states")
    return when, state


def _of_fedscale(told: dict[str, Any], where: str) -> Own:
    try:
        period = round(told["finish_time"])
        pairs = zip(told["active"], told["inactive"], strict=True)
        windows = [(round(start), round(end)) for start, end in pairs]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadInput(
            f"{where} needs finish_time, and as many seconds of active as of inactive"
        ) from None
    if any(not 0 <= start <= end for start, end in windows):
        raise BadInput(f"{where} has an inactive before its active")
    return _checked(period, where), windows


def _checked(period: int, where: str) -> int:
    if not 0 < period <= LONGEST:
        raise BadInput(f"{where} lasts {period} seconds; it must be 1 to {LONGEST}")
    return period


def _repeated(own: int, windows: list[Window], period: int) -> list[Window]:
    each = joined(windows, own)
    again = [(at + s, at + e) for at in range(0, period, own) for s, e in each]
    return joined([(s, min(e, period)) for s, e in again if s < period], period)
