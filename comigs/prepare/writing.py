"""The folder of a federation: all of it, or nothing."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comigs.errors import BadInput
from comigs.prepare.splitting import Client

BATCH = 256  # examples that are in memory at a time


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


def write_client(client: Client, folder: Path, labels: tuple[str, ...], suffix: str) -> Written:
    """Write <client>/<split>.txt, with a blank line between examples, or .jsonl, without."""
    home = folder / client.name
    home.mkdir()
    mix = dict.fromkeys(range(len(labels)), 0)
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    for split, table in client.splits.items():
        digest, blank = hashlib.sha256(), "\n" if suffix == ".txt" else ""
        with (home / f"{split}{suffix}").open("wb") as file:
            for batch in table.iter(BATCH):
                for text, label in zip(batch["text"], batch["label"], strict=True):
                    data = f"{blank if file.tell() else ''}{text}\n".encode()
                    digest.update(data)
                    file.write(data)
                    mix[label] += 1
            sizes[split] = file.tell()
            file.flush()
            os.fsync(file.fileno())
        digests[split] = digest.hexdigest()
    named = {labels[number]: count for number, count in mix.items() if count and labels[number]}
    return Written(client.name, client.examples, sizes, digests, named)


def sha256_of(path: Path) -> str:
    """The digest of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
