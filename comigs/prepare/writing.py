"""The folder of a federation: all of it, or nothing."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comigs.errors import BadInput
from comigs.prepare.examples import Examples
from comigs.prepare.splitting import Client

BATCH = 1024  # examples between two reports of progress


@dataclass(frozen=True)
class Written:
    """What one client got.

    Attributes:
        examples: by split.
        bytes: of its files, by split.
        sha256: of its files, by split.
        labels: how many examples each label has, by its name.
    """

    client: str
    examples: dict[str, int]
    bytes: dict[str, int]
    sha256: dict[str, str]
    labels: dict[str, int]


def check_out(out: Path) -> None:
    """Refuse a place where something is.

    Raises:
        BadInput: it is no folder, or not empty, or cannot be made.
    """
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir()):
        raise BadInput(f"--out {out} is not a folder; give a new one")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"--out {out} is not empty; give a new folder, or remove it")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out} cannot be made: there is no folder {out.parent}")


@contextmanager
def workshop(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, gone at the end whatever happens."""
    place = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".tmp", dir=out.parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def move_into_place(made: Path, out: Path) -> None:
    """The last step: what was made becomes `out`.

    Raises:
        BadInput: something is there by now.
    """
    check_out(out)
    if out.is_dir():
        out.rmdir()
    os.rename(made, out)


def write_client(
    client: Client, folder: Path, examples: Examples, watch: Callable[[int], None]
) -> Written:
    """Write <client>/<split>.txt, with a blank line between examples, or .jsonl, without.

    Args:
        watch: told how many of its examples were written, now and then.
    """
    home = folder / client.name
    home.mkdir()
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    done = 0
    blank = b"\n" if examples.suffix == ".txt" else b""
    for split, rows in client.splits.items():
        digest = hashlib.sha256()
        with (home / f"{split}{examples.suffix}").open("wb") as file:
            for begin in range(0, len(rows), BATCH):
                batch = rows[begin : begin + BATCH]
                for number, place in enumerate(examples.kept[batch].tolist(), begin):
                    data = (blank if number else b"") + examples.texts[place] + b"\n"
                    digest.update(data)
                    file.write(data)
                done += len(batch)
                watch(done)
            sizes[split] = file.tell()
            file.flush()
            os.fsync(file.fileno())
        digests[split] = digest.hexdigest()
    return Written(client.name, client.examples, sizes, digests, _labels(client, examples))


def _labels(client: Client, examples: Examples) -> dict[str, int]:
    """How many examples each label has, by its name; those that there are."""
    if not len(examples.label):
        return {}
    rows = np.concatenate(list(client.splits.values()))
    mix = np.bincount(examples.label[rows], minlength=len(examples.labels))
    return {name: int(count) for name, count in zip(examples.labels, mix, strict=True) if count}
