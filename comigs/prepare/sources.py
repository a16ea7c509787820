"""What SOURCE is: files of one kind, a saved data set, or an id on the hub."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from comigs.errors import BadInput
from comigs.store.plain import from_home

KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a folder
HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass
class _Place:
    """How far reading is."""

    before: int = 0
    file: IO[bytes] | None = None


@dataclass(frozen=True)
class Source:
    """Where examples come from.

    Attributes:
        name: as the user wrote it.
        kind: json, csv, text and parquet are files; saved and folder are for `datasets`; hub.
        root: the folder that files are named from.
        files: all of them, in order; none for the hub.
        beside: files of the folder that are of no such kind, and are not read.
        place: how far they were read.
    """

    name: str
    kind: str
    root: Path
    files: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    place: _Place = field(default_factory=_Place, compare=False)

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where others open them."""
        if self.kind not in ("json", "csv", "text"):
            return None
        return sum(path.stat().st_size for path in self.files)

    @property
    def position(self) -> int:
        """Bytes that were read of them."""
        return self.place.before + (self.place.file.tell() if self.place.file else 0)

    @contextmanager
    def open(self, path: Path, **how: Any) -> Iterator[IO[Any]]:
        """Open one of the files, to be read from its start to its end."""
        with path.open(**how) as file:
            self.place.file = getattr(file, "buffer", file)  # of a text, the bytes
            yield file
            self.place.file = None
        self.place.before += path.stat().st_size

    def called(self, path: Path) -> str:
        """What a file is called in messages and in the manifest."""
        return path.relative_to(self.root).as_posix()

    def stem(self, path: Path) -> str:
        """The value of the column `file` of its examples: its name without the ending."""
        return path.relative_to(self.root).with_suffix("").as_posix()


def find_source(name: str) -> Source:
    """Look at what is there.

    Raises:
        BadInput: nothing, or nothing that can be read.
    """
    path = from_home(name)
    if path.is_file():
        if (kind := KINDS.get(path.suffix.lower())) is None:
            raise BadInput(f"{name} is not read; expected {', '.join(KINDS)} or a folder")
        return Source(name, kind, path.parent, (path,))
    if path.is_dir():
        return _folder(name, path)
    if not HUB.fullmatch(name) or name.lower().endswith(tuple(KINDS)):
        raise BadInput(f"there is no {name}; give a file, a folder or an id on the hub")
    return Source(name, "hub", path)


def _folder(name: str, path: Path) -> Source:
    files = tuple(_files(path))
    if any((path / mark).is_file() for mark in SAVED):
        return Source(name, "saved", path, files)
    if _describes_itself(path / "README.md"):
        return Source(name, "folder", path, files)
    known = [file for file in files if file.suffix.lower() in KINDS]
    kinds = {KINDS[file.suffix.lower()] for file in known}
    if len(kinds) > 1:  # text beside data is a licence or a note
        kinds -= {"text"}
        known = [file for file in known if KINDS[file.suffix.lower()] in kinds]
    if len(kinds) > 1:
        raise BadInput(
            f"{name} holds files of several kinds ({', '.join(sorted(kinds))}); give one of them, "
            "or a folder of one kind"
        )
    if not files:
        raise BadInput(f"{name} is empty; expected {', '.join(KINDS)}, or a saved data set")
    if not kinds:  # what `datasets` may know: compressed files, Arrow, archives
        return Source(name, "folder", path, files)
    read = set(known)
    beside = tuple(file for file in files if file not in read)
    return Source(name, kinds.pop(), path, tuple(known), beside)


def not_read(files: Sequence[str]) -> str:
    """A line about files of other kinds than those that are read."""
    more = ", ..." if len(files) > 3 else ""
    return f"not read, of another kind: {', '.join(files[:3])}{more} ({len(files)} in all)"


def _files(folder: Path) -> Iterator[Path]:
    """All files below, but what is hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _describes_itself(card: Path) -> bool:
    """Whether the card of a data set says which files are what."""
    try:
        head = card.read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError:
        return False
    return head.startswith("---") and re.search(r"^configs:", head, re.MULTILINE) is not None
