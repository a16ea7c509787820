"""Checks of single settings, shared by the configuration's dataclasses."""

import math
from pathlib import Path

from comigs.errors import BadInput
from comigs.schema.bounds import shown


def require(ok: bool, key: str, value: object, rule: str) -> None:
    """Raise BadInput that names `key` unless `ok`."""
    if not ok:
        raise BadInput(f"{key} is {shown(value)}; it must be {rule}", key)


def at_least(key: str, value: "list[int] | float | None", least: float) -> None:
    """`value`, or each of it, is finite and not below `least`; null passes."""
    for v in value if isinstance(value, list) else [value]:
        if v is not None:
            require(math.isfinite(v) and v >= least, key, value, f"at least {least}")


def positive(key: str, value: float | None) -> None:
    """`value` is finite and above 0; null passes."""
    if value is not None:
        require(math.isfinite(value) and value > 0, key, value, "a number above 0")


def each_once(key: str, values: "list[int] | None") -> None:
    """No value is there twice; null passes."""
    require(len(set(values or ())) == len(values or ()), key, values, "a list without repeats")


def folder_name(key: str, value: str) -> None:
    """`value` can be the name of one folder, on any system."""
    good = 0 < len(value.encode()) <= 100 and value.isprintable() and value.strip(". ") != ""
    require(good and not set(value) & set('/\\:*?"<>|'), key, value, "a plain name for a folder")


def place(key: str, value: str) -> None:
    """`value` can be the name of a model, or a path."""
    encoded = value.encode("utf-8", "replace")
    short = len(encoded) < 4096 and all(len(part) < 256 for part in encoded.split(b"/"))
    require(short and value.strip() != "" and "\0" not in value, key, value, "a name, or a path")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise BadInput(f"{key} is {shown(value)}; there is no such user", key) from None
