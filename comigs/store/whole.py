"""Writing into folders that somebody else may have touched: never through a link or a pipe."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from comigs.errors import BadInput
from comigs.store.lock import lock

_BYTES = getattr(os, "O_BINARY", 0)  # Windows would change line ends
# Where the system has no such flags, `refuse_other` alone looks.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BYTES


def refuse_other(path: Path) -> None:
    """Refuse a place where there is something else than a plain file.

    Raises:
        BadInput: for a link, a folder, a FIFO or a device.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(f"{str(path)[:200]} cannot be used: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no file"
        raise BadInput(f"{path} is {what}, not a plain file; move it away")


def check_place(path: Path) -> None:
    """Refuse, before any work, a place where `write_whole` could not put a file.

    Raises:
        BadInput: there is something else, no such folder, or no permission.
    """
    refuse_other(path)
    if not path.parent.is_dir():
        raise BadInput(f"{path} cannot be written: {path.parent} is no folder")
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path} cannot be written: {path.parent} is read-only")


def write_whole(path: Path, data: str | bytes, mode: int = 0o666) -> None:
    """Put a file in its place, whole or not at all; an old one is replaced.

    Args:
        mode: of the file, less the umask.

    Raises:
        BadInput: as `refuse_other`.
        OSError: it cannot be written, e.g. because the disk is full.
    """
    refuse_other(path)
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _BYTES, mode)
    try:
        with open(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def append(path: Path, text: str) -> None:
    """Append to a plain file, which is made if need be.

    Raises:
        BadInput, OSError: as `write_whole`.
    """
    with open(_open(path, os.O_APPEND | os.O_WRONLY), "a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the lock ends with the process.

    Raises:
        BlockingIOError: another process holds it.
        BadInput, OSError: as `write_whole`.
    """
    handle = _open(path, os.O_RDWR)
    try:
        lock(handle, wait=False)
        yield
    finally:
        os.close(handle)


def _open(path: Path, how: int) -> int:
    refuse_other(path)
    handle = os.open(path, how | os.O_CREAT | _PLAIN, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # it took the file's place just now
        os.close(handle)
        raise BadInput(f"{path} is no plain file; move it away")
    return handle


def shown_to_all(folder: Path) -> None:
    """Give tensors below `folder` the mode that the umask gives: their library keeps them private.

    Raises:
        OSError: nothing can be written there.
    """
    probe = folder / f".{secrets.token_hex(4)}.tmp"
    with open(probe, "xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    probe.unlink()
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)
