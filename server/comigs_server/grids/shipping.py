"""A client's saved state as bytes, for workers on other nodes.

Nothing needs to be mounted there, and only the server's process writes to the run folder: a worker
that was given up cannot disturb what another one has redone. An archive is a safetensors file that
holds the bytes of each checkpoint file under its path.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
from flwr.app import Message
from safetensors.numpy import load, save

from comigs.store.state import round_folder, saved_rounds, state_root, write_files

_CHECKPOINT_FILE = re.compile(r"(final/)?round_(\d+)/([\w.]+)")


def needed_state(run_folder: Path, message: Message) -> bytes:
    """The archive of what a client reads for `message`: the round it names, or else all it has."""
    root = state_root(run_folder, message.metadata.dst_node_id - 1)
    number = _named(message, "state-round")
    rounds = saved_rounds(root) if number is None else [number]
    return _pack(root, [p for n in rounds for p in sorted(round_folder(root, n).glob("*"))])


def lay_out(archive: bytes, root: Path) -> frozenset[Path]:
    """Write the files of an archive under `root`. Returns their paths."""
    files = {root / path: data for path, data in _unpack(archive).items()}
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return frozenset(files)


def new_state(root: Path, known: Collection[Path]) -> bytes:
    """The archive of the files under `root` that are not `known`."""
    return _pack(root, sorted(p for p in root.rglob("*") if p.is_file() and p not in known))


def save_state(run_folder: Path, message: Message, archive: bytes) -> None:
    """Write the checkpoints of a worker's archive into the run folder, each whole.

    Raises:
        ComigsError: when they cannot be written.
        ValueError: when the archive holds anything but checkpoints.
    """
    checkpoints: dict[tuple[Path, int], list[tuple[str, bytes]]] = {}
    root = state_root(run_folder, message.metadata.dst_node_id - 1)
    for path, data in _unpack(archive).items():
        if not (match := _CHECKPOINT_FILE.fullmatch(path)):
            raise ValueError(f"a worker returned {path!r}, which is no part of a checkpoint")
        final, number, name = match.groups()
        folder = root / "final" if final else root
        checkpoints.setdefault((folder, int(number)), []).append((name, data))
    for (folder, round_number), files in checkpoints.items():
        write_files(folder, round_number, files, _named(message, "kept-round"))


def _named(message: Message, key: str) -> int | None:
    """A round that the message names."""
    order = message.content.config_records.get("config")
    number = order.get(key) if order else None
    return number if isinstance(number, int) else None


def _pack(root: Path, paths: Collection[Path]) -> bytes:
    files = {p.relative_to(root).as_posix(): np.frombuffer(p.read_bytes(), "u1") for p in paths}
    return save(files)


def _unpack(archive: bytes) -> dict[str, bytes]:
    return {path: data.tobytes() for path, data in load(archive).items()}
