"""All examples of a source, each text once.

The texts are in a file; in memory are 8 bytes for each of them, and 4 for its label and its owner.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comigs.data.chats import Unfit, valid
from comigs.data.names import in_order
from comigs.errors import BadInput
from comigs.prepare.lines import Row
from comigs.prepare.settings import Settings
from comigs.prepare.shapes import Reader, find_shape
from comigs.schema.build import suggest

TOLD = 1000  # rows between two reports of progress
DIGEST = 16  # bytes
AT_ONCE = 2**20  # digests that are compared in memory


class Texts:
    """Texts behind each other in a file, to be appended to and then read in any order."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._ends = array("q", [0])

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: bytes) -> None:
        """Keep one more."""
        self._file.write(text)
        self._ends.append(self._ends[-1] + len(text))

    def __getitem__(self, number: int) -> bytes:
        begin, end = self._ends[number], self._ends[number + 1]
        self._file.seek(begin)
        return self._file.read(end - begin)


@dataclass
class Counts:
    """What became of the rows of a source."""

    read: int = 0
    damaged: int = 0
    empty: int = 0
    duplicates: int = 0
    kept: int = 0


@dataclass
class Column:
    """The values of a column as numbers, in the order in which they were first seen."""

    name: str | None
    values: dict[str, int] = field(default_factory=dict)
    rows: "array[int]" = field(default_factory=lambda: array("i"))

    def value(self, row: dict[str, Any]) -> str:
        """The value of a row as a text; "" where there is no such column to look at."""
        if self.name is None:
            return ""
        value = row.get(self.name)
        if value is None or value == "" or value != value:  # the last is NaN
            raise Unfit(f"there is no {self.name!r}")
        if not isinstance(value, str | int | float):
            raise Unfit(f"{self.name!r} is a {type(value).__name__}; one value is expected")
        return valid(str(value))

    def add(self, value: str) -> None:
        """Append one row."""
        if self.name is not None:
            self.rows.append(self.values.setdefault(value, len(self.values)))

    def ordered(self, kept: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """The values of the rows `kept` as people order them; the number of each row's among them.

        Without a column there is one value, "", and no row has a number.
        """
        if self.name is None:
            return ("",), np.zeros(0, dtype=np.int32)
        rows = np.frombuffer(self.rows, dtype=np.int32)[kept]
        all_names = list(self.values)
        used = np.unique(rows)
        names = in_order(all_names[number] for number in used)
        place = {name: number for number, name in enumerate(names)}
        ranks = np.zeros(len(all_names), dtype=np.int32)
        ranks[used] = [place[all_names[number]] for number in used]
        return names, ranks[rows]


@dataclass(frozen=True)
class Examples:
    """What there is to share out.

    Attributes:
        texts: all that was read; those of `kept` are the examples.
        kept: numbers of texts, each of another one.
        label, owner: of each example, a number; of none where there is no such column.
        labels: what the numbers of labels stand for.
        owners: what the numbers of owners stand for.
        shape: what an example was recognised as.
        suffix: of the files that it is written to: .jsonl for chats, .txt for plain text.
    """

    texts: Texts
    kept: NDArray[np.int64]
    label: NDArray[np.int32]
    owner: NDArray[np.int32]
    labels: tuple[str, ...]
    owners: tuple[str, ...]
    shape: str
    suffix: str
    counts: Counts


def collect(
    rows: Iterable[Row], settings: Settings, texts: Texts, folder: Path, watch: Callable[[], None]
) -> Examples:
    """Read all rows.

    Args:
        texts: none yet; their texts are appended.
        folder: for what is needed meanwhile.
        watch: called now and then.

    Raises:
        BadInput: what a row holds is not clear, a row is damaged, or there is none.
    """
    counts = Counts()
    label, owner = Column(settings.label), Column(settings.by)
    reader: Reader | None = None
    path = folder / "digests"
    with path.open("wb") as digests:
        for row in rows:
            counts.read += 1
            if counts.read % TOLD == 0:
                watch()
            try:
                if row.damage:
                    raise Unfit(row.damage)
                reader = reader or _reader(row, settings)
                text = reader.text(row.values).encode()
                values = label.value(row.values), owner.value(row.values)
            except Unfit as reason:
                if not settings.skip_damaged:
                    hint = "mend it, or leave such examples out with --skip-damaged"
                    raise BadInput(f"{row.place}: {reason}; {hint}") from None
                counts.damaged += 1
                continue
            if not text:
                counts.empty += 1
                continue
            digests.write(hashlib.blake2b(text, digest_size=DIGEST).digest())
            texts.append(text)
            label.add(values[0])
            owner.add(values[1])
    if reader is None or not len(texts):
        raise BadInput(f"there is no example among {counts.read} rows")
    watch()
    kept = first_ones(path, len(texts))
    path.unlink()
    counts.kept, counts.duplicates = len(kept), len(texts) - len(kept)
    (labels, label_rows), (owners, owner_rows) = label.ordered(kept), owner.ordered(kept)
    suffix = ".jsonl" if reader.chats else ".txt"
    return Examples(
        texts, kept, label_rows, owner_rows, labels, owners, reader.shape.name, suffix, counts
    )


def first_ones(path: Path, count: int) -> NDArray[np.int64]:
    """Which of the digests in a file are not there earlier, in their order.

    Args:
        path: `count` digests of `DIGEST` bytes behind each other.
    """
    if not count:
        return np.zeros(0, dtype=np.int64)
    digests = np.memmap(path, dtype=f"S{DIGEST}", mode="r", shape=(count,))
    groups = min(count // AT_ONCE + 1, 256)  # equal ones are in one
    first = np.zeros(count, dtype=bool)
    heads = digests.view(np.uint8)[::DIGEST] % groups
    for group in range(groups):
        own = np.flatnonzero(heads == group)
        first[own[np.unique(digests[own], return_index=True)[1]]] = True
    return np.flatnonzero(first)


def _reader(row: Row, settings: Settings) -> Reader:
    """What the first row that is whole looks like."""
    reader = find_shape(row.values, settings.columns)
    for option, column in (("--by", settings.by), ("--label", settings.label)):
        if column is not None and column not in row.values:
            hint = f"there are {', '.join(row.values)}{suggest(column, row.values)}"
            raise BadInput(f"{option} is {column!r}; there is no such column: {hint}")
    return reader
