"""Taking a folder for a run: by one process at a time, and before anything is written."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comigs.errors import BadInput
from comigs.store.whole import locked

LOCK = ".lock"
EARLY = (LOCK, "origin.json", "identity.json")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder against other processes; the hold ends with the process.

    Raises:
        BadInput: when another process holds it, or it cannot be written to.
    """
    try:
        with locked(folder / LOCK):
            yield
    except BlockingIOError:
        raise BadInput(f"{folder} is in use by another process") from None


@contextmanager
def taken(folder: Path) -> Iterator[Path]:
    """Take a new or empty folder for a run, and hold it.

    Raises:
        BadInput: when it is none, is not empty, is in use, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; give another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made ({error.strerror}); give another --out") from None
    if any(folder.iterdir()) and not _is_bare(folder):
        raise _not_empty(folder)
    with held(folder):
        if not _is_bare(folder):  # another process was here first, and is done
            raise _not_empty(folder)
        yield folder


@contextmanager
def taken_anew(name: str) -> Iterator[Path]:
    """Take runs/<name>-<time>, with a number behind it where that is taken already."""
    base = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadInput(f"{folder} cannot be made ({error.strerror}); give --out") from None
        with taken(folder):
            yield folder
        return
    raise BadInput(f"{base} and its like are taken; give --out")


def _is_bare(folder: Path) -> bool:
    """Whether no run has begun here: one that was killed at once leaves less than config.yaml."""
    return all(p.name in EARLY or p.name.endswith(".tmp") for p in folder.iterdir())


def _not_empty(folder: Path) -> BadInput:
    return BadInput(f"{folder} is not empty; give another --out, or comigs run --resume {folder}")
