"""All examples of a source as one table on disk, each text once.

Texts are in an Arrow file that is mapped into memory; in memory are 16 bytes and two numbers for
each of them: the digest that tells duplicates, the label and the owner.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from comigs.data.chats import Unfit, valid
from comigs.data.names import in_order
from comigs.errors import BadInput
from comigs.prepare.lines import Row
from comigs.prepare.settings import Settings
from comigs.prepare.shapes import Reader, find_shape
from comigs.schema.build import suggest

TOLD = 1000  # rows between two reports of progress


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
    rows: "array[int]" = field(default_factory=lambda: array("q"))

    def value(self, row: dict[str, Any]) -> str:
        """The value of a row as a text; "" where there is no such column to look at."""
        if self.name is None:
            return ""
        if not isinstance(value := row.get(self.name), str | int | float) or value == "":
            raise Unfit(f"there is no {self.name!r}")
        return valid(str(value))

    def add(self, value: str) -> None:
        """Append one row."""
        self.rows.append(self.values.setdefault(value, len(self.values)))

    def ordered(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The values as people order them, and the number of each row's value among them."""
        names = in_order(self.values)
        place = {name: number for number, name in enumerate(names)}
        ranks = np.array([place[name] for name in self.values], dtype=np.int64)
        rows = np.frombuffer(self.rows, dtype=np.int64)
        return names, ranks[rows] if len(rows) else rows


@dataclass(frozen=True)
class Examples:
    """What there is to share out.

    Attributes:
        table: columns text, label and owner; the two are numbers.
        labels: what the numbers of labels stand for.
        owners: what the numbers of owners stand for.
        shape: what an example was recognised as.
        suffix: of the files that it is written to: .jsonl for chats, .txt for plain text.
    """

    table: Any
    labels: tuple[str, ...]
    owners: tuple[str, ...]
    shape: str
    suffix: str
    counts: Counts


def collect(
    rows: Iterable[Row], settings: Settings, folder: Path, watch: Callable[[int], None]
) -> Examples:
    """Read all rows into a table in `folder`.

    Args:
        watch: told how many rows were read, now and then.

    Raises:
        BadInput: what a row holds is not clear, a row is damaged, or there is none.
    """
    counts, seen = Counts(), set[bytes]()
    label, owner = Column(settings.label), Column(settings.by)
    reader: Reader | None = None
    path = folder / "examples.arrow"
    with ArrowWriter(
        path=str(path), features=datasets.Features({"text": datasets.Value("large_string")})
    ) as writer:
        for row in rows:
            counts.read += 1
            if counts.read % TOLD == 0:
                watch(counts.read)
            try:
                if row.damage:
                    raise Unfit(row.damage)
                reader = reader or _reader(row, settings)
                text = reader.text(row.values)
                values = label.value(row.values), owner.value(row.values)
            except Unfit as reason:
                if not settings.skip_damaged:
                    hint = "mend it, or leave such examples out with --skip-damaged"
                    raise BadInput(f"{row.place}: {reason}; {hint}") from None
                counts.damaged += 1
                continue
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if not text or digest in seen:
                counts.empty += not text
                counts.duplicates += bool(text)
                continue
            seen.add(digest)
            counts.kept += 1
            writer.write({"text": text})
            label.add(values[0])
            owner.add(values[1])
        if reader is None or not counts.kept:
            raise BadInput(f"there is no example among {counts.read} rows")
        writer.finalize()
    watch(counts.read)
    (labels, label_rows), (owners, owner_rows) = label.ordered(), owner.ordered()
    table = datasets.Dataset.from_file(str(path))
    table = table.add_column("label", label_rows).add_column("owner", owner_rows)
    suffix = ".jsonl" if reader.chats else ".txt"
    return Examples(table, labels, owners, reader.shape.name, suffix, counts)


def _reader(row: Row, settings: Settings) -> Reader:
    """What the first row that is whole looks like."""
    reader = find_shape(row.values, settings.columns)
    for option, column in (("--by", settings.by), ("--label", settings.label)):
        if column is not None and column not in row.values:
            hint = f"there are {', '.join(row.values)}{suggest(column, row.values)}"
            raise BadInput(f"{option} is {column!r}; there is no such column: {hint}")
    return reader
