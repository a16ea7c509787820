"""The texts of all examples in files, so that none is in memory: 8 bytes of each are."""

from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

DIGEST = 16  # bytes
AT_ONCE = 2**20  # digests that are compared in memory


class Texts:
    """Texts behind each other in a file, to be appended to and then read in any order."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
