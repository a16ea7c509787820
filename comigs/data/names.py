"""Which entries of a folder are texts, what they are called, and in which order clients come."""

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

SPLITS = ("train", "valid", "test")
SUFFIXES = (".txt", ".txt.xz")  # in small or large letters
EXAMPLES = (".jsonl", ".jsonl.xz")  # of chats
TABLES = (".json", ".csv", ".tsv", ".parquet")
SETTLED = 10**9  # ns; a folder that changed just now may change again at what counts as one time
_OURS = ("clients.json", "federation.json", "manifest.json")


def name_of(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """A text's name: its path's last part without .txt or .txt.xz; "" for what is hidden."""
    ends = [len(end) for end in suffixes if path.name.lower().endswith(end)]
    return "" if path.name.startswith(".") else path.name[: -ends[0]] if ends else path.name


def texts_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, Path]]:
    """(name, path) of the folder's texts; what is hidden is none."""
    named = [(name_of(path, suffixes), path) for path in sorted(folder.iterdir())]
    return [(name, path) for name, path in named if name not in ("", path.name) and path.is_file()]


def tables_in(folder: Path) -> list[str]:
    """Names of the folder's files that hold data of another form, which is not read as text."""
    files = (path.name for path in folder.iterdir() if path.is_file() and path.name not in _OURS)
    return sorted(name for name in files if name.lower().endswith(TABLES) and name[0] != ".")


def paths_of(stem: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files that hold the text `stem`, a path without .txt: none, one, or too many."""
    usual = [path for end in suffixes if (path := Path(f"{stem}{end}")).is_file()]
    if usual or not stem.parent.is_dir():
        return usual
    changed = stem.parent.stat().st_mtime_ns
    listed = _by_name if time.time_ns() - changed > SETTLED else _by_name.__wrapped__
    return list(listed(stem.parent, changed, suffixes).get(stem.name, ()))


@lru_cache(maxsize=64)
def _by_name(folder: Path, _changed: int, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The folder's texts by their names, listed once as long as it stays as it is."""
    named: dict[str, list[Path]] = {}
    for name, path in texts_in(folder, suffixes):
        named.setdefault(name, []).append(path)
    return named


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names as people count: client_2 before client_10. Numbers of one length sort as text."""
    listed = list(names)
    width = max(map(len, listed), default=0)

    def padded(name: str) -> tuple[str, str]:
        return re.sub("[0-9]+", lambda digits: digits[0].zfill(width), name), name

    return tuple(sorted(listed, key=padded))
