"""Examples of data sets that the library `datasets` reads: mapped into memory, never whole."""

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from comigs.errors import BadInput, flat
from comigs.prepare.lines import Row
from comigs.prepare.sources import Source
from comigs.schema.build import suggest

PATIENCE = 5  # seconds for the hub to answer
BATCH = 256  # rows that are Python objects at a time
LOUD = ("datasets", "huggingface_hub")  # what they log is in the one line of an error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and the log lines of the libraries, which go on as before afterwards."""
    levels = {name: logging.getLogger(name).level for name in LOUD}
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def rows_of_parquet(source: Source, cache: Path) -> Iterator[Row]:
    """One example a row, file by file."""
    for path in source.files:
        table = _loaded(source.called(path), "parquet", cache, data_files=str(path))
        for row in _rows(table["train"], source.called(path)):
            yield Row(row.place, {"file": source.stem(path)} | row.values)


def rows_of_saved(source: Source, split: str) -> Iterator[Row]:
    """A folder that `save_to_disk` wrote."""
    try:
        found = datasets.load_from_disk(str(source.root))
    except Exception as error:  # whatever a damaged folder leads to
        raise _unreadable(source.name, error) from None
    yield from _rows(_chosen(found, source.name, split), source.name)


def rows_of_folder(source: Source, cache: Path, split: str, subset: str | None) -> Iterator[Row]:
    """A folder that `load_dataset` knows what to do with."""
    found = _loaded(source.name, str(source.root), cache, name=subset)
    yield from _rows(_chosen(found, source.name, split), source.name)


def rows_of_hub(source: Source, split: str, subset: str | None) -> Iterator[Row]:
    """A data set of the hub, through the cache of `datasets`."""
    try:
        with _offline(not _reachable()):
            found = datasets.load_dataset(source.name, name=subset)
    except Exception as error:  # no network, no such id, no permission, a choice of subsets
        raise BadInput(
            f"{source.name} is no file or folder here, and cannot be loaded from the hub "
            f"({flat(str(error), 200)}); where there is a network, download it with: "
            f"hf download {source.name} --repo-type dataset --local-dir FOLDER, "
            "and give the folder"
        ) from None
    yield from _rows(_chosen(found, source.name, split), source.name)


def _reachable() -> bool:
    """Whether the hub answers at all; the libraries try again and again for half a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return True  # they know themselves what to do
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


@contextmanager
def _offline(yes: bool) -> Iterator[None]:
    """Have the libraries look into their cache alone."""
    both: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [each.HF_HUB_OFFLINE for each in both]
    try:
        for each in both if yes else ():
            each.HF_HUB_OFFLINE = True
        yield
    finally:
        for each, value in zip(both, before, strict=True):
            each.HF_HUB_OFFLINE = value


def _loaded(called: str, what: str, cache: Path, **options: Any) -> Any:
    try:
        return datasets.load_dataset(what, cache_dir=str(cache), **options)
    except Exception as error:  # of many kinds, with the reason in the innermost
        raise _unreadable(called, error.__cause__ or error) from None


def _unreadable(name: str, error: BaseException) -> BadInput:
    return BadInput(f"{name} cannot be read as a data set ({flat(str(error), 200)})")


def _chosen(found: Any, name: str, split: str) -> Any:
    """One split of a data set; the only one, whatever its name."""
    if not isinstance(found, dict):
        return found
    if split not in found and len(found) > 1:
        hint = f"there are {', '.join(found)}{suggest(split, found)}"
        raise BadInput(f"{name} has no split {split!r}; --split chooses one: {hint}")
    return found[split] if split in found else next(iter(found.values()))


def _rows(table: Any, name: str) -> Iterator[Row]:
    """Rows with the names of their labels instead of numbers."""
    labels = {
        column: feature
        for column, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    number = 0
    for batch in table.iter(BATCH):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            for column, feature in labels.items():
                if row[column] is not None and row[column] >= 0:
                    row[column] = feature.int2str(row[column])
            yield Row(f"{name}, row {number}", row)
            number += 1
