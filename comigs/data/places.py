"""Where in a federation's folder the text of a client is, and the reading of it.

It is in splits already, or whole and cut here: text into blocks of lines, chats into blocks of
examples.
"""

import lzma
import os
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from comigs.data.names import (
    EXAMPLES,
    SPLITS,
    SUFFIXES,
    TEXTS,
    files_of,
    in_order,
    is_folder,
    text_files,
)
from comigs.errors import BadInput, TooShort
from comigs.store.plain import MIB, check_plain, read_plain

LIMIT = 1024 * MIB  # most bytes of a text
HELD_OUT = 0.1  # share of a client's characters, or examples, in each of valid and test
FEWEST = 3  # examples that can be cut


def whole_of(root: Path, client: str) -> list[Path]:
    """The files that together are a client's text, in their order; none where it is in splits.

    Raises:
        BadInput: the text is in two places.
    """
    place = os.path.join(root, client)
    found = [(client, root / file) for file in files_of(root, client, TEXTS)]
    if is_folder(root, client):
        if found:
            raise both(Path(place), found[0][1])
        inside = text_files(place, TEXTS)
        if not any(name.lower() in SPLITS for name, _ in inside):
            found = [
                (name, Path(place, file))
                for name, file in inside
                if file.lower().endswith(SUFFIXES)
            ]
    named: dict[str, Path] = {}
    for name, path in found:
        if name in named:
            raise both(named[name], path)
        named[name] = path
    return [named[name] for name in in_order(named)]


def split_file(root: Path, client: str, split: str) -> Path:
    """The file of one split of a client whose text is in splits.

    Raises:
        BadInput: there is none, or more than one.
    """
    folder = os.path.join(root, client)
    if not os.path.isdir(folder):
        raise BadInput(f"{folder}.txt is missing")
    found = files_of(folder, split, SUFFIXES) + files_of(folder, split, EXAMPLES)
    if not found:
        chats = any(files_of(folder, each, EXAMPLES) for each in SPLITS)
        raise BadInput(
            f"{os.path.join(folder, split)}{'.jsonl' if chats else '.txt'} is missing; a client's "
            "folder holds train, valid and test (.txt or .jsonl), or texts of other names, which "
            "are cut into these: add it, or give the other names"
        )
    paths = [Path(folder, file) for file in found]
    if len(paths) > 1:
        raise both(*paths[:2])
    return paths[0]


def both(one: Path, other: Path) -> BadInput:
    """That a text is in two places."""
    return BadInput(
        f"{one} and {other.name} are the same client's text, in two places; keep one of them"
    )


def are_chats(files: Sequence[Path]) -> bool:
    """Whether a client's files hold chats, one a line, and not plain text."""
    return any(path.name.lower().endswith(EXAMPLES) for path in files)


def size_of(files: Sequence[Path], root: Path) -> int:
    """Bytes on disk, without opening a file.

    Raises:
        BadInput: none, or too many; or a file is a link to somewhere else.
    """
    size = sum(check_plain(path, root, LIMIT) for path in files)
    if not size:
        raise TooShort(f"{_together(files)} is empty")
    if size > LIMIT:
        raise _too_large(files)
    return size


def read_files(files: Sequence[Path], root: Path) -> str:
    """The text of one file as it is; of several, with a blank line between them.

    Raises:
        BadInput: when a file is too large, not UTF-8, or a link to somewhere else.
    """
    texts, size = [], 0
    for path in files:
        text, more = _read(path, root)
        texts.append(text)
        if (size := size + more) > LIMIT:
            raise _too_large(files)
    if len(texts) == 1:
        return texts[0]
    stripped = (text.strip("\r\n") for text in texts)
    return "\n\n".join(text for text in stripped if text) + "\n"


def _read(path: Path, root: Path) -> tuple[str, int]:
    try:
        data = read_plain(path, root, LIMIT)
        return data.decode("utf-8-sig"), len(data)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv"
        ) from None
    except (lzma.LZMAError, EOFError) as error:
        raise BadInput(f"{path} is not a readable xz file: {error}") from None


def _together(files: Sequence[Path]) -> Path:
    return files[0] if len(files) == 1 else files[0].parent


def _too_large(files: Sequence[Path]) -> BadInput:
    return BadInput(
        f"the texts in {_together(files)} are larger than {LIMIT // MIB} MiB together; that is "
        "more than is read"
    )


def blocks(text: str) -> list[str]:
    """Cut text into consecutive train, valid and test blocks at line ends."""
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    cuts = (0.0, (1 - 2 * HELD_OUT) * len(text), (1 - HELD_OUT) * len(text), float(len(text)))
    edges = [starts[bisect_left(starts, cut)] for cut in cuts]
    return [text[begin:end] for begin, end in pairwise(edges)]


def example_blocks(text: str, path: Path) -> list[tuple[int, str]]:
    """Cut chats into consecutive train, valid and test blocks, each with the lines before it.

    Raises:
        BadInput: there are too few.
    """
    lines = text.split("\n")
    places = [number for number, line in enumerate(lines) if line.strip()]
    if len(places) < FEWEST:
        raise TooShort(
            f"{path} holds {len(places)} examples; train, valid and test need one each: add to it"
        )
    held = max(1, int(HELD_OUT * len(places)))
    edges = [0, places[-2 * held], places[-held], len(lines)]
    return [(begin, "\n".join(lines[begin:end])) for begin, end in pairwise(edges)]
