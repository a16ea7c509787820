"""`comigs report`: one self-contained page about one run, or about several compared."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader, Template

from comigs.config.load import IDENTITY_FILE, read_config
from comigs.errors import BadInput
from comigs.methods import own_methods
from comigs.report.plots import Picture, Series, lines, stacked
from comigs.report.simulated import Kind, kinds_of_device
from comigs.store.chosen import RoundChosen
from comigs.store.events import (
    ClientTrained,
    Damaged,
    Dropped,
    Ended,
    Event,
    Failed,
    Late,
    RoundDone,
    Started,
)
from comigs.store.metrics import damaged_lines, events_of, final_rows, gain
from comigs.store.whole import write_whole

E = TypeVar("E", bound=Event)
NUMBERS = (
    *("pretrained", "before", "after", "bits_per_byte", "bytes_up", "bytes_down"),
    *("seconds", "trainable", "communicated"),
)


@dataclass(frozen=True)
class Run:
    """What a run folder tells; parts that are missing are empty."""

    label: str
    folder: Path
    config_text: str
    config: dict[str, Any]
    environment: dict[str, Any]
    events: list[Event]
    damaged: list[int]  # lines of metrics.jsonl

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def rounds(self) -> list[RoundDone]:
        return self.of(RoundDone)

    @property
    def ends(self) -> list[Ended]:
        return self.of(Ended)

    @property
    def chosen(self) -> RoundChosen | None:
        return next(iter(self.of(RoundChosen)), None)

    @property
    def missed(self) -> list[Late | Dropped]:
        return [event for event in self.events if isinstance(event, Late | Dropped)]

    @property
    def troubles(self) -> list[Failed | Damaged]:
        return [event for event in self.events if isinstance(event, Failed | Damaged)]

    @property
    def finished(self) -> bool:
        ends = [event for event in self.events if isinstance(event, Started | Ended)]
        return bool(ends) and isinstance(ends[-1], Ended)

    @property
    def done(self) -> int:
        return max((event.round for event in self.rounds), default=0)

    @property
    def planned(self) -> int | None:
        return next((e.rounds for e in reversed(self.of(Started))), self.config.get("rounds"))

    @property
    def method(self) -> str:
        return str(self.config.get("method") or next((e.method for e in self.of(Started)), "?"))

    @property
    def summary(self) -> str:
        known = own_methods().get(self.method)
        return f"{known.summary} ({known.paper})" if known else ""

    @property
    def resume(self) -> str:
        return f"comigs run --resume {shlex.quote(str(self.folder))}"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return final_rows(self.folder)

    @property
    def winners(self) -> int:
        """Clients that end better than the bare base."""
        return sum(row["after"] < row["pretrained"] for row in self.rows)

    @property
    def dtypes(self) -> str:
        """The base's, or those of the clients' bases."""
        dtype = (self.config.get("model") or {}).get("dtype")
        return ", ".join(dict.fromkeys(dtype)) if isinstance(dtype, list) else str(dtype)

    @cached_property
    def kinds(self) -> list[Kind]:
        """What its simulated devices did."""
        return kinds_of_device(self.events)

    @cached_property
    def mean(self) -> dict[str, float]:
        """Mean over the clients of every number that all of them have."""
        rows = self.rows
        return {
            key: sum(row[key] for row in rows) / len(rows)
            for key in NUMBERS
            if rows and all(row.get(key) is not None for row in rows)
        }


def write_report(runs: Sequence[Path]) -> Path:
    """Write report.html into the first run's folder and return its path.

    Args:
        runs: run folders, finished or not.

    Raises:
        BadInput: when a folder is not a run, or the page cannot be written.
    """
    if not runs:
        raise BadInput("no run folder given; try: comigs report runs/<name>")
    for folder in runs:
        if (Path(folder) / IDENTITY_FILE).exists():
            read_config(Path(folder))  # refuses one that was edited after its run had begun
    loaded = [_load(Path(folder)) for folder in runs]
    if len({run.label for run in loaded}) < len(loaded):
        loaded = [replace(run, label=str(run.folder)) for run in loaded]
    pictures = pictures_of(loaded[0]) if len(loaded) == 1 else _compared(loaded)
    page = _template().render(
        runs=loaded,
        pictures=[picture for picture in pictures if picture],
        clients=list(dict.fromkeys(row["name"] for run in loaded for row in run.rows)),
        differences=_differences(loaded),
    )
    path = loaded[0].folder / "report.html"
    try:
        write_whole(path, page)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    return path


@cache
def _template() -> Template:
    templates = Environment(
        loader=PackageLoader("comigs.report", "."),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
    )
    templates.globals["gain_of"] = gain
    return templates.get_template("run.html.j2")


def _load(folder: Path) -> Run:
    if not any((folder / name).is_file() for name in ("config.yaml", "metrics.jsonl")):
        raise BadInput(
            f"{folder} holds neither config.yaml nor metrics.jsonl; it is not a run folder"
        )
    text = _read(folder / "config.yaml")
    try:
        config = yaml.safe_load(text) or {}
        environment = json.loads(_read(folder / "environment.json") or "{}")
    except (yaml.YAMLError, json.JSONDecodeError):
        raise BadInput(f"{folder}: config.yaml or environment.json is damaged") from None
    if not isinstance(config, dict):
        raise BadInput(f"{folder}/config.yaml does not hold settings")
    return Run(
        folder.resolve().name,
        folder,
        text,
        config,
        environment,
        events_of(folder),
        damaged_lines(folder),
    )


def _differences(runs: list[Run]) -> dict[str, list[Any]]:
    """Dotted settings that are not the same in all runs that have any, with each run's value."""
    flat = [_flat(run.config) for run in runs]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        if len({repr(one.get(key)) for one in flat if one}) > 1:
            found[key] = [one.get(key) for one in flat]
    return found


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _points(events: Sequence[RoundDone | ClientTrained], key: str) -> list[tuple[float, float]]:
    points = ((float(event.round), getattr(event, key)) for event in events)
    return [(at, value) for at, value in points if isinstance(value, int | float)]


def _summed(events: Sequence[RoundDone], *keys: str) -> list[tuple[float, float]]:
    """Megabytes of all rounds so far."""
    total, points = 0.0, list[tuple[float, float]]()
    for event in events:
        total += sum(getattr(event, key) for key in keys)
        points.append((event.round, total / 1e6))
    return points


AS_RECEIVED = (
    "Of the model as received in that round, before local training: round 1 shows the bare base. "
    "Lower is better."
)
MARKED = " The dotted line marks the models that were tested."
TRAFFIC = "Traffic of all clients added up; what the final test fetches is not in it."
SPENT = "Client-level epsilon of the shared tensors at the delta of the configuration."


def pictures_of(run: Run) -> list[Picture | None]:
    """Pictures of one run, one line per client."""
    trained = run.of(ClientTrained)
    names = {e.client: e.name for e in sorted(trained, key=lambda e: e.client)}
    by_client = {c: [e for e in trained if e.client == c] for c in names}

    def series(key: str) -> list[Series]:
        return [Series(names[c], _points(by_client[c], key), i) for i, c in enumerate(names)]

    rounds = run.rounds
    workers = (run.config.get("engine") or {}).get("workers") or 1
    wall = [e.seconds for e in rounds]
    work = [min(e.seconds, e.compute_seconds / workers) for e in rounds]
    shared = f", shared by {workers} workers" if workers > 1 else ""
    sent = [
        Series("clients to server", _summed(rounds, "bytes_up"), 0),
        Series("server to clients", _summed(rounds, "bytes_down"), 1),
    ]
    spent = [Series("epsilon", _points(rounds, "epsilon"), 0)]
    mark = run.chosen.tested + 1 if run.chosen and run.chosen.tested < run.done else None
    about = AS_RECEIVED + ("" if mark is None else MARKED)
    return [
        lines(series("valid_ppl"), "Validation perplexity", about, "perplexity", True, mark),
        lines(series("loss"), "Training loss", "Mean over a round's local steps.", "loss"),
        lines(sent, "Bytes sent", TRAFFIC, "MB since the start"),
        lines(spent, "Privacy spent", SPENT, "epsilon"),
        stacked(
            [e.round for e in rounds],
            [("compute", work), ("overhead", [a - b for a, b in zip(wall, work, strict=True)])],
            "Time per round",
            f"Compute: the clients' training and evaluation{shared}. Overhead: all the rest.",
        ),
    ]


def _compared(runs: list[Run]) -> list[Picture | None]:
    """Pictures of several runs, one line per run."""

    def series(points: Callable[[list[RoundDone]], list[tuple[float, float]]]) -> list[Series]:
        return [Series(run.label, points(run.rounds), i) for i, run in enumerate(runs)]

    valid, loss, seconds = (
        series(lambda events, key=key: _points(events, key))  # type: ignore[misc]
        for key in ("valid_ppl", "loss", "seconds")
    )
    sent = series(lambda events: _summed(events, "bytes_up", "bytes_down"))
    mean = "Mean over clients. "
    return [
        lines(valid, "Validation perplexity", mean + AS_RECEIVED, "perplexity", log=True),
        lines(loss, "Training loss", mean + "Mean over a round's local steps.", "loss"),
        lines(sent, "Bytes sent", TRAFFIC, "MB since the start, both ways"),
        lines(seconds, "Time per round", "Wall clock.", "seconds"),
    ]
