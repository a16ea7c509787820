"""The base's weights in a file that processes can share: stored in the dtype they are used in.

Safetensors in that dtype are mapped into memory, so that all processes of a machine have one copy
together. From any other file each process makes a copy of its own.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import transformers
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file

from comigs.store.lock import lock
from comigs.store.plain import sha256_of

CHECKSUMS = "checksums.json"
CHECKED = 2  # higher whenever copies of before might hold what is refused now
WORTH_SHARING = 1 << 25  # bytes of weights; copies of smaller ones do not matter
_STORED = {"float32": "F32", "bfloat16": "BF16"}


def shared_source(source: str, dtype: str, load: Callable[[str], PreTrainedModel]) -> str:
    """`source`, or a folder with the same weights as safetensors in `dtype`, made when needed.

    Such folders are in ~/.cache/comigs, or where XDG_CACHE_HOME says; they can be deleted. Where
    none can be written, a warning says so.

    Args:
        source: a folder, or a hub id.
        load: loads the model at `source` in `dtype`.
    """
    copy = kept_copy(source, dtype, load, lambda to: load(source).save_pretrained(to))
    return source if copy is None else str(copy)


def kept_copy(
    source: str,
    dtype: str,
    load: Callable[[str], PreTrainedModel],
    write: Callable[[Path], object],
) -> Path | None:
    """A folder that holds the weights at `source` in another form, made when needed.

    None where they are too small to share or have that form already, or, with a warning, where no
    copy can be kept.

    Args:
        source: a folder, or a hub id.
        dtype: the form.
        load: loads the model at `source`, and so fetches it.
        write: writes the files into a folder that is there.
    """
    weights = _weights(source)
    if not weights:
        load(source)
        weights = _weights(source)
    size = sum(path.stat().st_size for path in weights)
    if size < WORTH_SHARING or all(_fits(path, dtype) for path in weights):
        return None
    try:
        cache = cache_folder()
        target = cache / f"{weights[0].parent.name}-{dtype}-{_fingerprint(weights)}"
        cache.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as file:
            lock(file.fileno())
            if not intact(target):
                _store(target, write)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # no home, a full disk
        logging.getLogger("comigs").warning(
            "no %s copy of %s could be stored (%s): each process keeps its own",
            dtype,
            source,
            error,
        )
        return None
    return target


def cache_folder() -> Path:
    """Where copies and notes of this machine are kept; RuntimeError without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comigs"


def _store(target: Path, write: Callable[[Path], object]) -> None:
    temporary = Path(f"{target}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        write(temporary)
        (temporary / CHECKSUMS).write_text(json.dumps(_checksums(temporary)))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    intact.cache_clear()


@cache
def intact(folder: Path) -> bool:
    """Whether a stored copy is what was stored; looked at once per process and copy.

    500 MB take 0.4 s.
    """
    try:
        return json.loads((folder / CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    files = (path for path in sorted(folder.iterdir()) if path.name != CHECKSUMS)
    return {path.name: sha256_of(path) for path in files}


def _weights(source: str) -> list[Path]:
    """The files that `from_pretrained` reads; none while a hub model has not been fetched."""
    config = cached_file(source, "config.json")
    folder = Path(str(config)).parent
    return sorted(folder.glob("model*.safetensors"))


def _fits(path: Path, dtype: str) -> bool:
    """Whether all weights of a file can be used as they are stored."""
    stored = _STORED.get(dtype)  # none that can be used as it is quantised
    with safe_open(path, "pt") as file:
        return all(file.get_slice(k).get_dtype() == stored for k in file.keys())  # noqa: SIM118


def _fingerprint(weights: Sequence[Path]) -> str:
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in weights]
    made = (transformers.__version__, CHECKED, facts)
    return hashlib.sha256(repr(made).encode()).hexdigest()[:12]
