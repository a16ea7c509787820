"""Which entries of a folder are texts, what they are called, and in which order clients come."""

import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from comigs.errors import BadInput

SPLITS = ("train", "valid", "test")
SUFFIXES = (".txt", ".txt.xz")  # in small or large letters
EXAMPLES = (".jsonl", ".jsonl.xz")  # of chats
TEXTS = SUFFIXES + EXAMPLES
TABLES = (".json", ".csv", ".tsv", ".parquet")
PACKED = (".txt.gz", ".txt.bz2", ".txt.zst", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst")
LONGEST = 200  # characters of a client's name
SETTLED = 10**9  # ns; a folder that changed just now may change again at what counts as one time
Place = Path | str
_OURS = ("clients.json", "federation.json", "manifest.json")


def name_of(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """A text's name: its path's last part without .txt or .txt.xz; "" for what is hidden."""
    return _name_of(path.name, suffixes)


def _ends(file: str, suffixes: tuple[str, ...]) -> bool:
    return file.lower().endswith(suffixes)


def _name_of(file: str, suffixes: tuple[str, ...]) -> str:
    if file.startswith("."):
        return ""
    small = file.lower()
    return next((file[: -len(end)] for end in suffixes if small.endswith(end)), file)


def texts_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, Path]]:
    """(name, path) of the folder's texts; what is hidden is none."""
    return [(name, folder / file) for name, file in text_files(folder, suffixes)]


def _is_text(entry: os.DirEntry[str], suffixes: tuple[str, ...]) -> bool:
    """Whether there is text in it. Raises: BadInput: it is a link to nothing."""
    name = entry.name
    if not (name.endswith(suffixes) or _ends(name, suffixes)):
        return False
    if entry.is_symlink() and name[0] != "." and not os.path.exists(entry):
        raise BadInput(f"{entry.path} is a link to nothing; put the text there, or remove it")
    return entry.is_file()


def text_files(folder: Place, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, file name) of the folder's texts: in 100,000 of them paths would be most of memory.

    Raises:
        BadInput: one is a link to what is not there.
    """
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if _is_text(e, suffixes))
    named = [(_name_of(file, suffixes), file) for file in files]
    return [(name, file) for name, file in named if name]


def is_client(name: str) -> bool:
    """Whether a client can be called so: in one line, as text that others can read."""
    return len(name) <= LONGEST and name.isprintable()


def unread_in(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Names of the folder's files of another form (`TABLES`, `PACKED`), not read as text."""
    with os.scandir(folder) as entries:
        ending = (entry for entry in entries if entry.name.lower().endswith(endings))
        files = sorted(entry.name for entry in ending if entry.is_file())
    return [file for file in files if file[0] != "." and file not in _OURS]


def paths_of(stem: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files that hold the text `stem`, a path without .txt: none, one, or too many."""
    return [stem.parent / file for file in files_of(stem.parent, stem.name, suffixes)]


def files_of(folder: Place, name: str, suffixes: tuple[str, ...]) -> list[str]:
    """`paths_of` as names: of 100,000 clients' files most of the time would go into paths."""
    known = _settled(folder)
    if known is None:
        usual = [
            file for end in suffixes if os.path.isfile(os.path.join(folder, file := name + end))
        ]
        if usual or not os.path.isdir(folder):
            return usual
        known = listed(folder)
    found = [file for end in suffixes if (file := name + end) in known.files]
    return found or [f for f in known.odd.get(name, ()) if _ends(f, suffixes)]


def holds_text(folder: Place) -> bool:
    """Whether a folder is that of a client; it is read no further than its first text."""
    with os.scandir(folder) as entries:
        return any(_is_clients(entry.name) and entry.is_file() for entry in entries)


def _is_clients(file: str) -> bool:
    """Whether a file in a client's folder would be text of it."""
    if _ends(file, SUFFIXES):
        return file[0] != "."
    return _ends(file, EXAMPLES) and _name_of(file, EXAMPLES) in SPLITS


def is_folder(folder: Place, name: str) -> bool:
    """Whether there is a folder of this name in another."""
    known = _settled(folder)
    return os.path.isdir(os.path.join(folder, name)) if known is None else name in known.folders


class Listed(NamedTuple):
    """What is in a folder, by name, links followed.

    Attributes:
        files: texts and chats whose names end as they usually do.
        odd: by name without ending, those with an ending in large letters.
        folders: hidden ones, too.
    """

    files: frozenset[str]
    odd: dict[str, list[str]]
    folders: frozenset[str]


def listed(folder: Place) -> Listed:
    """What is in a folder now.

    Raises:
        BadInput: a text in it is a link to what is not there.
    """
    return _settled(folder) or _listed.__wrapped__(str(folder), 0)


def _settled(folder: Place) -> Listed | None:
    """What is in a folder, read once as long as it stays as it is; None for what may change."""
    try:
        changed = os.stat(folder).st_mtime_ns
    except OSError:
        return None
    return _listed(str(folder), changed) if time.time_ns() - changed > SETTLED else None


@lru_cache(maxsize=64)
def _listed(folder: str, _changed: int) -> Listed:
    files: set[str] = set()
    odd: dict[str, list[str]] = {}
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if _is_text(entry, TEXTS):
                if name.endswith(TEXTS):
                    files.add(name)
                elif stem := _name_of(name, TEXTS):
                    odd.setdefault(stem, []).append(name)
            elif entry.is_dir():
                folders.add(name)
    return Listed(
        frozenset(files), {n: sorted(same) for n, same in odd.items()}, frozenset(folders)
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names as people count: client_2 before client_10. Numbers of one length sort as text."""
    listed = list(names)
    if len(listed) < 2:
        return tuple(listed)
    width = max(map(len, listed))

    def padded(name: str) -> tuple[str, str]:
        return re.sub("[0-9]+", lambda digits: digits[0].zfill(width), name), name

    return tuple(sorted(listed, key=padded))
