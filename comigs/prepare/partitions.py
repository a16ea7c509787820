"""Who gets which examples: the partitioners of flwr-datasets, one row of `MAKERS` each."""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow
from flwr_datasets import partitioner as flower
from numpy.typing import NDArray

from comigs.errors import BadInput, flat, one_line
from comigs.prepare.examples import Examples
from comigs.prepare.names import legal_names
from comigs.prepare.settings import ADDED, BY_LABEL, FEWEST, Settings
from comigs.schema.byfile import added_to


@dataclass(frozen=True)
class Part:
    """The examples of one client, by their numbers."""

    name: str
    rows: NDArray[np.int64]


def _dirichlet(clients: int, settings: Settings) -> Any:
    """Drawn again, ten times at most, until everybody has enough; or else as it comes."""
    least = FEWEST if settings.min_examples is None else 0
    return flower.DirichletPartitioner(
        clients, "label", settings.alpha or 1.0, min_partition_size=least, seed=settings.seed
    )


def _pathological(clients: int, settings: Settings) -> Any:
    """Client i has the labels i, i + 1, ... in their order, from the first again at the end."""
    return flower.PathologicalPartitioner(
        clients, "label", settings.share, "deterministic", seed=settings.seed
    )


def _shards(clients: int, settings: Settings) -> Any:
    """Sorted by label, cut into equal shards, and the shards dealt out."""
    return flower.ShardPartitioner(clients, "label", settings.share, seed=settings.seed)


MAKERS: dict[str, Callable[[int, Settings], Any]] = {
    "iid": lambda clients, _: flower.IidPartitioner(clients),
    "dirichlet": _dirichlet,
    "pathological": _pathological,
    "shards": _shards,
    "linear": lambda clients, _: flower.LinearPartitioner(clients),
    "exponential": lambda clients, _: flower.ExponentialPartitioner(clients),
    "square": lambda clients, _: flower.SquarePartitioner(clients),
}


def partition(examples: Examples, settings: Settings) -> list[Part]:
    """Share the examples out, after a seeded shuffle where no natural id says whose they are.

    Raises:
        BadInput: that many clients cannot be made of these examples.
    """
    if settings.clients is None:
        return _natural(examples)
    rows, clients = len(examples.kept), settings.clients
    if clients > rows:
        raise BadInput(f"--clients is {clients}; there are {rows} examples")
    if settings.kind == "pathological" and settings.share > len(examples.labels):
        raise BadInput(
            f"--per-client is {settings.share}; column {settings.label!r} has "
            f"{len(examples.labels)} labels"
        )
    maker = _maker(clients, settings)
    try:
        table = _shuffled(examples, settings.seed)
        return _parts(maker, table, [f"client_{i}" for i in range(clients)])
    except ValueError as error:
        fixes = "fewer --clients"
        if settings.kind == "dirichlet":
            fixes = "a larger --alpha, fewer --clients, or --min-examples to leave small ones out"
        elif settings.kind in BY_LABEL:
            fixes = "fewer --clients or another --per-client"
        raise BadInput(
            f"--partition {settings.kind} with --clients {clients} is not possible here; "
            f"try {fixes} ({flat(str(error), 160)})"
        ) from None


def _maker(clients: int, settings: Settings) -> Any:
    if own := MAKERS.get(settings.kind):
        return own(clients, settings)
    make = added_to(ADDED, MAKERS)[settings.kind]()
    try:
        return make(clients, settings)
    except Exception as error:  # of another's code
        raise BadInput(f"--partition {settings.kind} cannot be used: {one_line(error)}") from None


def _natural(examples: Examples) -> list[Part]:
    """One part for each owner, in the order of the source; NaturalIdPartitioner needs 60 times
    the memory for the same."""
    order = np.argsort(examples.owner, kind="stable")
    ends = np.cumsum(np.bincount(examples.owner))
    parts = np.split(order, ends[:-1])
    return [Part(*pair) for pair in zip(legal_names(examples.owners), parts, strict=True)]


class _Numbers(datasets.Dataset):
    """Whole columns are arrays; `datasets` gives a list of objects."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and self._indices is None:
            return self.data.column(key).to_numpy()
        return super().__getitem__(key)


def _shuffled(examples: Examples, seed: int) -> Any:
    """What partitioners share out: numbers of examples, and their labels."""
    order = np.random.default_rng(seed).permutation(len(examples.kept)).astype(np.int32)
    columns = {"row": order} | ({"label": examples.label[order]} if len(examples.label) else {})
    return _Numbers(pyarrow.table(columns))


def _parts(maker: Any, table: Any, names: list[str]) -> list[Part]:
    """One part a name; what the library says on the way is for its own users."""
    maker.dataset = table
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return [Part(name, _rows(maker.load_partition(i))) for i, name in enumerate(names)]


def _rows(part: Any) -> NDArray[np.int64]:
    """Its numbers; asked for them, `datasets` makes an object for each row."""
    rows = part.data.column("row").to_numpy()
    return rows if part._indices is None else rows[part._indices.column(0).to_numpy()]
