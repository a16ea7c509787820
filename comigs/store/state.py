"""Checkpoints keyed by round: one folder per round, written whole or not at all, with checksums.

Training round t reads the state of an earlier round and writes round t, so a repeated or
interrupted round changes nothing. Only safetensors and JSON.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from comigs.errors import BadInput, ComigsError
from comigs.store.plain import MIB, read_plain

KEEP = 3  # a round being redone after a damaged server checkpoint still finds what it reads
MAX_JSON, MAX_TENSORS = 64 * MIB, 16 * 1024 * MIB  # bytes of one file


class DamagedState(ComigsError):
    """A checkpoint is missing, incomplete, or its checksum does not fit."""


def state_root(run_folder: Path, client: int) -> Path:
    """Where a client keeps its checkpoints."""
    return run_folder / "clients" / str(client)


def round_folder(root: Path, round_number: int) -> Path:
    """Where the checkpoint of a round is.

    Raises:
        DamagedState: for a negative number, which no round has.
    """
    if round_number < 0:
        raise DamagedState(f"there is no round {round_number}")
    return root / f"round_{round_number:05d}"


def write_state(
    root: Path,
    round_number: int,
    tensors: dict[str, dict[str, Tensor]],
    meta: dict[str, Any],
    also: int | None = None,
) -> None:
    """Write the checkpoint of a round; keep it, the `KEEP` - 1 before it, and no other but `also`.

    Args:
        root: folder of one client or of the server.
        tensors: by file stem, e.g. {"tensors": {...}, "optimizer": {...}}.
        meta: JSON-able values, stored in state.json.
        also: a round that is kept however old it is.

    Raises:
        ComigsError: when the disk is full or not writable; earlier rounds stay as they were.
    """

    def fill(folder: Path) -> None:
        checksums = {}
        for stem, group in tensors.items():
            name = f"{stem}.safetensors"
            checksums[name] = save_tensors(folder / name, group)
        body = {"round": round_number, "meta": meta, "sha256": checksums}
        body["self"] = _digest(body)
        write_file(folder / "state.json", (json.dumps(body, indent=1) + "\n").encode())

    _write_folder(root, round_number, fill, also)


def write_files(
    root: Path, round_number: int, files: Iterable[tuple[str, bytes]], also: int | None = None
) -> None:
    """`write_state` for a checkpoint that is at hand as files, by name.

    Raises:
        ComigsError: as `write_state`.
    """

    def fill(folder: Path) -> None:
        for name, data in files:
            write_file(folder / name, data)

    _write_folder(root, round_number, fill, also)


def _write_folder(
    root: Path, round_number: int, fill: Callable[[Path], None], also: int | None
) -> None:
    """Have a round's folder filled under another name, and move it to its place."""
    folder = round_folder(root, round_number)
    temporary = root / f".{folder.name}.{os.getpid()}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in (root, root.parent):
            if part.is_symlink() and part.name in ("server", "clients", "final", root.name):
                raise OSError(f"{part} is a link")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        fill(temporary)
        _sync(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        _sync(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ComigsError(
            f"round {round_number} could not be saved in {root}: {error.strerror or error}; "
            "the last saved round is untouched"
        ) from error
    clean(root, round_number, also)


def read_state(
    root: Path, round_number: int
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return (tensors, meta) as given to `write_state`.

    Raises:
        DamagedState: when a file is missing or its checksum does not fit.
    """
    folder = round_folder(root, round_number)
    try:
        body = json.loads(read_plain(folder / "state.json", root, MAX_JSON))
        if body.pop("self") != _digest(body):
            raise DamagedState(f"{folder / 'state.json'} is damaged (checksum)")
        tensors = {}
        for name, digest in body["sha256"].items():
            data = read_plain(folder / name, folder, MAX_TENSORS)
            if hashlib.sha256(data).hexdigest() != digest:
                raise DamagedState(f"{folder / name} is damaged (checksum)")
            tensors[name.removesuffix(".safetensors")] = load(data)
    except BadInput as error:
        raise DamagedState(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedState(f"{folder} is damaged ({type(error).__name__})") from error
    return tensors, body["meta"]


def saved_rounds(root: Path) -> list[int]:
    """Rounds that have a folder under `root`, in order; their content is not checked."""
    return sorted(
        int(p.name.removeprefix("round_"))
        for p in root.glob("round_*")
        if p.name.removeprefix("round_").isdigit()
    )


def intact_rounds(root: Path) -> list[int]:
    """Rounds under `root` whose checksums fit, in order."""
    good = []
    for number in saved_rounds(root):
        with contextlib.suppress(DamagedState):
            read_state(root, number)
            good.append(number)
    return good


def newest_state(root: Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The newest round under `root` whose checksums fit, with its tensors and meta, if any."""
    for number in reversed(saved_rounds(root)):
        with contextlib.suppress(DamagedState):
            return (number, *read_state(root, number))
    return None


def clean(root: Path, newest: int, also: int | None = None) -> None:
    """Delete old rounds but `also`, those after `newest` (it was redone), and leftover writes."""
    rounds = saved_rounds(root)
    kept = [number for number in rounds if number <= newest][-KEEP:]
    unwanted = [round_folder(root, number) for number in rounds if number not in (*kept, also)]
    for folder in [*unwanted, *root.glob(".round_*.tmp")]:
        shutil.rmtree(folder, ignore_errors=True)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write straight from the tensors' memory, with no copy; return the file's checksum."""
    try:
        save_file({k: v.contiguous() for k, v in sorted(tensors.items())}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
