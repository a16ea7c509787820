"""Reading files that may come from somebody else: no way out of their folder, no endless ones."""

import hashlib
import lzma
import os
import stat
from pathlib import Path

from comigs.errors import BadInput

MIB = 2**20


def from_home(path: str | Path) -> Path:
    """The path with `~` as the home folder: no shell expands it in `--out=~/x` or in Python.

    Raises:
        BadInput: there is no such user, or nobody knows the home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadInput(f"{str(path)[:200]!r}: no home folder is known for it") from None


def sha256_of(path: Path | str) -> str:
    """The digest of a file, read piece by piece, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 16):
            digest.update(piece)
    return digest.hexdigest()


def read_plain(path: Path, root: Path, limit: int) -> bytes:
    """The content of a file, unpacked if its name ends with .xz (or .XZ).

    Args:
        root: the folder that it must be in, links followed.
        limit: most bytes, also after unpacking.

    Raises:
        BadInput: the path or a link leads out of `root`, it is no file, or it is too large.
        LZMAError, EOFError: it cannot be unpacked.
        OSError: it cannot be read.
    """
    check_plain(path, root, limit)
    if path.suffix.lower() != ".xz":
        return path.read_bytes()
    with lzma.open(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _too_large(path, limit)
    return data


def check_plain(path: Path, root: Path, limit: int) -> int:
    """Raise what `read_plain` would, as far as can be told without reading; or return the bytes."""
    found = _without_links(path, root)
    if found is None:
        if not path.resolve().is_relative_to(root.resolve()):
            raise BadInput(
                f"{path} leads out of {root}, to {path.resolve()}; put a copy there instead"
            )
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{path} is not a file")
    if found.st_size > limit:
        raise _too_large(path, limit)
    return found.st_size


def _without_links(path: Path, root: Path) -> os.stat_result | None:
    """The path's status, if no part of it below `root` is a link: then it is inside.

    Following links takes ten times as long. Windows has some that do not tell: there it is done.
    """
    at, whole, found = str(root), str(path), None
    if os.name != "posix" or not whole.startswith(f"{at}/"):
        return None
    for part in whole[len(at) + 1 :].split("/"):
        at = f"{at}/{part}"
        found = os.lstat(at)
        if part == ".." or stat.S_ISLNK(found.st_mode):
            return None
    return found


def _too_large(path: Path, limit: int) -> BadInput:
    return BadInput(f"{path} is larger than {limit // MIB} MiB; that is more than is read")
