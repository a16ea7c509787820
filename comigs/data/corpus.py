"""Federations of text on disk: one client per file or per folder.

Four layouts, each file optionally compressed with xz:
    <folder>/<client>.txt                          split here into consecutive blocks of lines
    <folder>/<client>/*.txt                        the same of all together, in their order
    <folder>/<client>.jsonl                        chats, one a line (`comigs.data.chats`), so too
    <folder>/<client>/{train,valid,test}.txt       already split; or the same of .jsonl

Clients are in the order in which people count (client_2 before client_10); hidden files and folders
are none. A device that holds its own text only has a clients.json beside it: the names of all
clients, in the order of their numbers.
"""

import difflib
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from comigs.data.names import (
    EXAMPLES,
    LONGEST,
    PACKED,
    SPLITS,
    TABLES,
    TEXTS,
    holds_text,
    in_order,
    is_client,
    listed,
    paths_of,
    text_files,
    unread_in,
)
from comigs.data.places import (
    HELD_OUT,
    are_chats,
    blocks,
    both,
    example_blocks,
    read_files,
    size_of,
    split_file,
    whole_of,
)
from comigs.errors import BadInput, TooShort
from comigs.store.plain import MIB, read_plain

BUNDLED = Path(__file__).parent / "bundled"
ROSTER = "clients.json"
SHARES = {"train": 1 - 2 * HELD_OUT, "valid": HELD_OUT, "test": HELD_OUT}  # of a whole text


def federation_folder(name: str) -> Path:
    """Return the folder of a bundled federation or of the user's own.

    Raises:
        BadInput: when there is neither.
    """
    if (BUNDLED / name).is_dir():
        return BUNDLED / name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        bundled = sorted(p.name for p in BUNDLED.iterdir() if p.is_dir())
        near = difflib.get_close_matches(name, bundled, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BadInput(
            f"data.name is {name!r}; give a folder of text files or one of: {', '.join(bundled)}"
            + hint
        )
    return folder


Reader = TypeVar("Reader", bound=Callable[..., Any])
_OF_TEXTS: list[Any] = []  # caches
_SINCE: dict[Path, int] = {}  # by folder, when its texts were read first, in ns
_TICK = 100_000_000  # ns by which the clock of files may be late


def of_texts(reader: Reader) -> Reader:
    """Have `forget_changed` empty this cache of what is read of texts."""
    _OF_TEXTS.append(reader)
    return reader


def forget_changed(name: str) -> None:
    """Let go what this process has read of texts, if those of a federation have changed since."""
    now = time.time_ns()
    try:
        folder = federation_folder(name).resolve()
    except BadInput:
        return
    if folder not in _SINCE:
        _SINCE[folder] = now
        return
    places = (
        os.path.join(place, file) for place, _, files in os.walk(folder) for file in [*files, "."]
    )
    stats = (os.stat(place) for place in places if os.path.exists(place))
    if any(max(s.st_mtime_ns, s.st_ctime_ns) > _SINCE[folder] - _TICK for s in stats):
        _SINCE[folder] = now
        for cache in _OF_TEXTS:
            cache.cache_clear()


@of_texts
@lru_cache
def client_names(name: str) -> tuple[str, ...]:
    """Names of a federation's clients: as clients.json lists them, or else in sorted order.

    Raises:
        BadInput: when the folder holds no text files, or two of one name, or one whose name no
            client can have, or clients.json no names.
    """
    folder = federation_folder(name)
    if (folder / ROSTER).is_file():
        return _listed(folder / ROSTER)
    texts = text_files(folder, TEXTS)
    folders = [name for name in listed(folder).folders if name[0] != "."]
    names: dict[str, str] = {}
    whole = [(name, name) for name in folders if holds_text(os.path.join(folder, name))]
    for name, entry in texts + whole:
        if name in names:
            raise both(folder / names[name], folder / entry)
        names[name] = entry
    if not names:
        tables, packed = (unread_in(folder, endings) for endings in (TABLES, PACKED))
        raise BadInput(
            f"data.name {name!r} holds no text: expected <client>.txt files (chats: .jsonl), "
            "or folders <client> with .txt files, or with train, valid and test (.txt or .jsonl)"
            + (f"; {tables[0]} is none: comigs data prepare makes text of it" if tables else "")
            + (f"; {packed[0]} is none: unpack it, or pack it with xz" if packed else "")
        )
    if odd := next((name for name in names if not is_client(name)), None):
        raise BadInput(
            f"the text {names[odd]!r} in {folder} names a client, and such a name has at most "
            f"{LONGEST} characters, all of which can be printed: rename it"
        )
    return in_order(names)


def _listed(path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(read_plain(path, path.parent, MIB))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
    named = isinstance(names, list) and names and all(map(_is_name, names))
    if not named or len(set(names)) != len(names):
        raise BadInput(f"{path} does not hold a list of the clients' names, each once")
    return tuple(names)


def _is_name(name: object) -> bool:
    """Whether it can be the name of a file; a path is not."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return is_client(name) and name == Path(name).name


def holds_chats(name: str, client: str, split: str) -> bool:
    """Whether a split is of chats, one a line, and not plain text.

    Raises:
        BadInput: the client's text is in two places.
    """
    root = federation_folder(name)
    return are_chats(whole_of(root, client) or paths_of(root / client / split, EXAMPLES))


def read_split(name: str, client: str, split: str) -> str:
    """Return the text of one split of one client, of chats as they are written.

    Raises:
        BadInput: when the file is missing, empty, too large, not UTF-8, or a link to elsewhere.
    """
    _, _, text = _split(name, client, split)
    if not text.strip():
        raise TooShort(f"client {client!r} of {name!r} has no text in its {split} split")
    return text


def place_of(name: str, client: str, split: str) -> tuple[Path, int]:
    """The file that a split of chats is in, and the lines before it. Raises as `read_split`."""
    path, before, _ = _split(name, client, split)
    return path, before


def _split(name: str, client: str, split: str) -> tuple[Path, int, str]:
    root = federation_folder(name)
    if not (files := whole_of(root, client)):
        path = split_file(root, client, split)
        return path, 0, read_files([path], root)
    text = read_files(files, root)
    if are_chats(files):
        return files[0], *example_blocks(text, files[0])[SPLITS.index(split)]
    return files[0], 0, blocks(text)[SPLITS.index(split)]


def check_sizes(name: str, clients: Iterable[str]) -> None:
    """Look at the sizes of the clients' files, without opening them.

    Raises:
        BadInput: when one is missing, empty, too large, or a link to somewhere else.
    """
    root = federation_folder(name)
    for client in clients:
        on_disk(root, client)


class OnDisk(NamedTuple):
    """One split of a client: about how many bytes on disk, and whether they are of chats."""

    size: float
    chats: bool


def on_disk(root: Path, client: str) -> dict[str, OnDisk]:
    """The splits of a client of the federation in folder `root`; raises as `check_sizes`."""
    if files := whole_of(root, client):
        size, chats = size_of(files, root), are_chats(files)
        return {split: OnDisk(size * share, chats) for split, share in SHARES.items()}
    found = {split: split_file(root, client, split) for split in SPLITS}
    return {
        split: OnDisk(size_of([path], root), are_chats([path])) for split, path in found.items()
    }
