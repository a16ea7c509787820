"""From a data set to a federation, step by step."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comigs.errors import BadInput
from comigs.prepare.examples import Counts, Texts, collect
from comigs.prepare.lines import Row, rows_of_csv, rows_of_json, rows_of_text
from comigs.prepare.partitions import partition
from comigs.prepare.settings import Settings
from comigs.prepare.sources import Source, find_source
from comigs.prepare.splitting import large_enough, set_apart, split
from comigs.prepare.tables import (
    quiet,
    rows_of_folder,
    rows_of_hub,
    rows_of_parquet,
    rows_of_saved,
)
from comigs.prepare.writing import (
    Written,
    check_out,
    move_into_place,
    workshop,
    write_client,
)
from comigs.store.plain import sha256_of
from comigs.store.strict import to_json
from comigs.store.whole import write_whole
from comigs.version import __version__

MANIFEST = "manifest.json"
LIBRARIES = ("datasets", "flwr-datasets", "numpy", "pyarrow")
Watch = Callable[[str, int, int | None], None]  # step, how far, of how many


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        shape: what an example was recognised as.
        left_out: clients that were too small.
        unused: examples that the partition gives to nobody, or that were theirs.
        held_out: clients whose examples the others validate and are tested on.
        beside: names of files of other kinds, which were not read.
    """

    clients: tuple[Written, ...]
    counts: Counts
    shape: str
    left_out: int
    unused: int
    held_out: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def prepare(source_name: str, out: Path, settings: Settings, watch: Watch) -> Prepared:
    """Write the federation folder `out`.

    Raises:
        BadInput: the source, an option or the place is wrong; nothing is left behind.
    """
    settings.check()
    check_out(out)
    source = find_source(source_name)
    with quiet(), workshop(out) as place:
        cache, made = place / "cache", place / "made"
        cache.mkdir()
        made.mkdir()
        return _prepare(source, out, settings, watch, cache, made)


def _prepare(
    source: Source, out: Path, settings: Settings, watch: Watch, cache: Path, made: Path
) -> Prepared:
    with closing(Texts(cache / "texts")) as texts:
        size = source.size
        watch("reading", 0, size)
        examples = collect(
            _rows(source, settings, cache),
            settings,
            texts,
            cache,
            lambda: watch("reading", source.position, size),
        )
        watch("sharing out", 0, None)
        parts = partition(examples, settings)
        large = large_enough(parts, settings)
        kept, unseen = set_apart(large, settings)
        used = sum(len(part.rows) for part in large)
        clients = [split(part, settings.seed, unseen) for part in kept]
        total = sum(sum(client.examples.values()) for client in clients)
        written: list[Written] = []
        before = 0

        def tell(count: int) -> None:
            watch("writing", before + count, total)

        for client in clients:
            written.append(write_client(client, made, examples, tell))
            before += sum(client.examples.values())
    done = Prepared(
        tuple(written),
        examples.counts,
        examples.shape,
        len(parts) - len(large),
        examples.counts.kept - used,
        unseen.names if unseen else (),
        tuple(source.called(file) for file in source.beside),
    )
    sums = []
    for number, file in enumerate(source.files):
        watch("checksums", number, len(source.files))
        sums.append({"file": source.called(file), "sha256": sha256_of(file)})
    manifest = _manifest(source, settings, done, sums)
    write_whole(made / MANIFEST, to_json(manifest, indent=1) + "\n")
    move_into_place(made, out)
    return done


def _rows(source: Source, settings: Settings, cache: Path) -> Iterator[Row]:
    for option, value, kinds in (
        ("--split", settings.split, ("saved", "folder", "hub")),
        ("--subset", settings.subset, ("folder", "hub")),
    ):
        if value is not None and source.kind not in kinds:
            raise BadInput(
                f"{option} is {value!r}; {source.name} has none: give what to read of it"
            )
    split = settings.split or "train"
    match source.kind:
        case "json":
            return rows_of_json(source)
        case "csv":
            return rows_of_csv(source)
        case "text":
            return rows_of_text(source)
        case "parquet":
            return rows_of_parquet(source, cache)
        case "saved":
            return rows_of_saved(source, split)
        case "folder":
            return rows_of_folder(source, cache, split, settings.subset)
        case "hub":
            return rows_of_hub(source, split, settings.subset)
    raise BadInput(f"{source.name} is of no known kind")


def _manifest(
    source: Source, settings: Settings, done: Prepared, sums: list[dict[str, str]]
) -> dict[str, Any]:
    """Where the texts are from and what they are; the same for the same command."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "source": {"name": source.name, "kind": source.kind, "files": sums},
        "settings": asdict(settings),
        "shape": done.shape,
        "rows": asdict(done.counts),
        "clients_left_out": done.left_out,
        "examples_unused": done.unused,
        "clients_held_out": done.held_out,
        "clients": [asdict(client) for client in done.clients],
        "versions": {"comigs": __version__, "python": platform.python_version(), **versions},
    }
