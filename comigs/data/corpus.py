"""Federations of text on disk: one client per file or per folder.

Three layouts, each file optionally compressed with xz:
    <folder>/<client>.txt                          split here into consecutive blocks of lines
    <folder>/<client>/{train,valid,test}.txt       already split
    <folder>/<client>/{train,valid,test}.jsonl     chats, one a line (`comigs.data.chats`)

Clients are in the order in which people count (client_2 before client_10); hidden files and folders
are none. A device that holds its own text only has a clients.json beside it: the names of all
clients, in the order of their numbers.
"""

import difflib
import json
import lzma
from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

from comigs.config.settings import RunConfig
from comigs.data.names import EXAMPLES, SUFFIXES, in_order, paths_of, tables_in, texts_in
from comigs.errors import BadInput
from comigs.store.plain import MIB, check_plain, read_plain

BUNDLED = Path(__file__).parent / "bundled"
ROSTER = "clients.json"
SPLITS = ("train", "valid", "test")
LIMIT = 1024 * MIB  # most bytes of a text
Kinds = tuple[tuple[str, ...], ...]
_TEXT: Kinds = (SUFFIXES,)  # what the files of a folder may be
_EITHER: Kinds = (SUFFIXES, EXAMPLES)  # in the folder of a client
HELD_OUT = 0.1  # share of a client's characters in each of valid and test


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


@lru_cache
def client_names(name: str) -> tuple[str, ...]:
    """Names of a federation's clients: as clients.json lists them, or else in sorted order.

    Raises:
        BadInput: when the folder holds no text files, or two of one name, or clients.json no names.
    """
    folder = federation_folder(name)
    if (folder / ROSTER).is_file():
        return _listed(folder / ROSTER)
    texts = texts_in(folder)
    folders = [(p.name, p) for p in folder.iterdir() if p.is_dir() and p.name[0] != "."]
    names: dict[str, Path] = {}
    for name, path in texts + [(name, path) for name, path in folders if _has_splits(path)]:
        if name in names:
            raise _both(names[name], path)
        names[name] = path
    if not names:
        tables = tables_in(folder)
        raise BadInput(
            f"data.name {name!r} holds no text: expected <client>.txt files, "
            "or <client>/train.txt, valid.txt and test.txt, or the same of .jsonl"
            + (f"; {tables[0]} is none: comigs data prepare makes text of it" if tables else "")
        )
    return in_order(names)


def roster(config: RunConfig) -> tuple[str, ...]:
    """Names of the clients whose text takes part.

    Raises:
        BadInput: when the config asks for more clients than the data has.
    """
    names = client_names(config.data.name)
    if config.clients is not None and config.clients > len(names):
        raise BadInput(
            f"clients is {config.clients}; {config.data.name!r} has {len(names)}: set clients="
            f"{len(names)} or less, or data.name to a folder with a text for each"
        )
    return names[: config.clients]


def _has_splits(folder: Path) -> bool:
    return bool(texts_in(folder)) or any(paths_of(folder / s, EXAMPLES) for s in SPLITS)


def _both(one: Path, other: Path) -> BadInput:
    return BadInput(
        f"{one} and {other.name} are the same client's text, in two places; keep one of them"
    )


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
    return isinstance(name, str) and name == Path(name).name != "" and name not in (".", "..")


def holds_chats(name: str, client: str, split: str) -> bool:
    """Whether a split is of chats, one a line, and not plain text."""
    return bool(paths_of(federation_folder(name) / client / split, EXAMPLES))


def read_split(name: str, client: str, split: str) -> str:
    """Return the text of one split of one client, of chats as they are written.

    Raises:
        BadInput: when the file is missing, empty, too large, not UTF-8, or a link to elsewhere.
    """
    folder = federation_folder(name)
    if (folder / client).is_dir():
        if found := paths_of(folder / client):
            raise _both(folder / client, found[0])
        text = _read(folder / client / split, folder, _EITHER)
    else:
        text = _blocks(_read(folder / client, folder, _TEXT))[SPLITS.index(split)]
    if not text.strip():
        raise BadInput(f"client {client!r} of {name!r} has no text in its {split} split")
    return text


def check_sizes(name: str, clients: Iterable[str]) -> None:
    """Look at the sizes of the clients' files, without opening them.

    Raises:
        BadInput: when one is missing, empty, too large, or a link to somewhere else.
    """
    for client in clients:
        split_sizes(name, client)


def split_sizes(name: str, client: str) -> dict[str, float]:
    """About how many bytes each split of a client has on disk; raises as `check_sizes`."""
    folder = federation_folder(name)
    if (folder / client).is_dir():
        return {split: _size(folder / client / split, folder, _EITHER) for split in SPLITS}
    size = _size(folder / client, folder, _TEXT)
    return {split: size * (HELD_OUT if split != "train" else 1 - 2 * HELD_OUT) for split in SPLITS}


def _found(stem: Path, kinds: Kinds) -> list[Path]:
    return [path for suffixes in kinds for path in paths_of(stem, suffixes)]


def _size(stem: Path, root: Path, kinds: Kinds) -> int:
    found = _found(stem, kinds)
    for path in found:
        check_plain(path, root, LIMIT)
    sizes = [path.stat().st_size for path in found]
    if not any(sizes):
        raise BadInput(f"{_called(stem)} is {'empty' if sizes else 'missing'}")
    return max(sizes)


def _called(stem: Path) -> str:
    """What a file that is not there would be called, as its neighbours are."""
    chats = any(paths_of(stem.parent / split, EXAMPLES) for split in SPLITS)
    return f"{stem}{'.jsonl' if chats else '.txt'}"


def _read(stem: Path, root: Path, kinds: Kinds) -> str:
    found = _found(stem, kinds)
    if not found:
        raise BadInput(f"{_called(stem)} is missing")
    if len(found) > 1:
        raise _both(*found[:2])
    path = found[0]
    try:
        return read_plain(path, root, LIMIT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv"
        ) from None
    except (lzma.LZMAError, EOFError) as error:
        raise BadInput(f"{path} is not a readable xz file: {error}") from None


def _blocks(text: str) -> list[str]:
    """Cut text into consecutive train, valid and test blocks at line ends."""
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    cuts = (0.0, (1 - 2 * HELD_OUT) * len(text), (1 - HELD_OUT) * len(text), float(len(text)))
    edges = [starts[bisect_left(starts, cut)] for cut in cuts]
    return [text[begin:end] for begin, end in pairwise(edges)]
