"""A run whose configuration names a data set: the federation that is made of it, once."""

import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.prepare.settings import Settings
from comigs.prepare.sources import Source, find_source, not_read
from comigs.schema.build import Origin, build
from comigs.store.lock import lock
from comigs.store.plain import sha256_of
from comigs.version import __version__

LIBRARIES = ("datasets", "flwr-datasets", "numpy")  # what decides how it is shared out


def with_source(config: RunConfig) -> RunConfig:
    """The configuration with `data.name` instead of `data.source`.

    What is made is in ~/.cache/comigs/prepared, or where XDG_CACHE_HOME says, in a folder whose
    name follows from the files of the data set and the settings; it is made once.

    Raises:
        BadInput: `data.source` or `data.prepare` is wrong, or devices bring their own text.
    """
    data = config.data
    if data.source is None:
        return config
    if config.engine.name == "flower":
        raise BadInput(
            f"data.source is {data.source!r}; with engine.name flower each device brings its own "
            "text: comigs data prepare, and comigs deploy init --data FOLDER"
        )
    settings = build(Settings, data.prepare, Origin("configuration", {}), "data.prepare")
    try:
        settings.check()
        folder = _prepared(data.source, settings)
    except BadInput as error:
        raise BadInput(_as_keys(str(error))) from None
    return replace(config, data=replace(data, name=str(folder), source=None, prepare={}))


def _as_keys(text: str) -> str:
    """`--min-examples is 2` as `data.prepare.min_examples is 2`."""
    names = "|".join(field.name.replace("_", "-") for field in fields(Settings))
    spelt = re.sub(
        rf"--({names})\b", lambda found: f"data.prepare.{found[1].replace('-', '_')}", text
    )
    named = spelt != text or spelt.startswith("data.")
    return spelt if named else f"data.source: {spelt}"


def _prepared(name: str, settings: Settings) -> Path:
    from comigs.backbone.cache import cache_folder

    source = find_source(name)
    try:
        home = cache_folder().absolute() / "prepared"
        home.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:40]
        digest = _digest(source, settings)
        folder = home / f"{stem}-{digest}"
        with open(f"{folder}.lock", "w") as file:
            try:
                lock(file.fileno(), wait=False)
            except BlockingIOError:
                tell = logging.getLogger("comigs").warning
                tell("another process prepares %s; waiting for it", name)
                lock(file.fileno())
            if not _whole(folder):
                for left in (folder, *home.glob(f".{folder.name}.*.tmp")):  # by a kill
                    shutil.rmtree(left, ignore_errors=True)
                _make(name, folder, settings)
                if _digest(find_source(name), settings) != digest:
                    shutil.rmtree(folder)
                    raise BadInput(f"{name} changed while it was read; begin again")
    except (OSError, RuntimeError) as error:  # no home, a full disk
        raise BadInput(
            f"data.source {name!r} cannot be prepared ({error}); prepare it with comigs data "
            "prepare, and give its folder as data.name"
        ) from None
    return folder


def _digest(source: Source, settings: Settings) -> str:
    files = []
    for path in source.files:
        stat = path.stat()
        files.append((source.called(path), _checksum(path, stat.st_size, stat.st_mtime_ns)))
    versions = {"comigs": __version__}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = ""
    whole = [source.name if not files else "", source.kind, files, asdict(settings), versions]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _checksum(path: Path, _size: int, _changed: int) -> str:
    return sha256_of(path)


def _whole(folder: Path) -> bool:
    """Whether all files are there, as large as they were written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        ending = ".txt" if manifest["shape"] == "text" else ".jsonl"
        return all(
            (folder / client["client"] / f"{split}{ending}").stat().st_size == size
            for client in manifest["clients"]
            for split, size in client["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _make(name: str, folder: Path, settings: Settings) -> None:
    from comigs.track.steps import steps

    try:
        from comigs.prepare.prepare import prepare
    except ImportError as error:
        raise BadInput(
            f"data.source needs datasets and flwr-datasets ({error}): pip install 'comigs[data]'"
        ) from None
    with steps() as show:
        done = prepare(name, folder, settings, show)
    counts: dict[str, Any] = asdict(done.counts)
    told = [f"{counts[part]:,} {part}" for part in ("damaged", "empty", "duplicates")]
    told = [part for part in told if not part.startswith("0 ")]
    logging.getLogger("comigs").warning(
        "%s: %s rows read as %s, %s kept%s; %d clients in %s",
        name,
        f"{done.counts.read:,}",
        done.shape,
        f"{done.counts.kept:,}",
        f" ({', '.join(told)} left out)" if told else "",
        len(done.clients),
        folder,
    )
    if done.beside:
        logging.getLogger("comigs").warning("%s: %s", name, not_read(done.beside))
