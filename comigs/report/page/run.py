"""What a run folder tells, for pages about it."""

import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from comigs.errors import BadInput
from comigs.methods import own_methods
from comigs.report.simulated import Kind, kinds_of_device
from comigs.store.chosen import RoundChosen
from comigs.store.events import (
    Damaged,
    Dropped,
    Ended,
    Event,
    Failed,
    Joined,
    Late,
    RoundDone,
    Started,
)
from comigs.store.metrics import events_and_damage, rows_of

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
        return rows_of(self.events)

    @property
    def clients(self) -> list[str]:
        """Their names: as the run began, then who came later."""
        began = next((e.clients for e in reversed(self.of(Started)) if e.clients), [])
        return list(dict.fromkeys([*began, *(event.name for event in self.of(Joined))]))

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


def load_run(folder: Path) -> Run:
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
    if not isinstance(config, dict) or not _sections(config, "model", "data", "engine"):
        raise BadInput(f"{folder}/config.yaml does not hold settings")
    if not isinstance(environment, dict) or not _sections(environment, "packages"):
        raise BadInput(f"{folder}/environment.json is not that of a run; remove it")
    return Run(
        folder.resolve().name,
        folder,
        text,
        config,
        environment,
        *events_and_damage(folder),
    )


def _sections(tree: dict[str, Any], *names: str) -> bool:
    return all(isinstance(tree.get(name) or {}, dict) for name in names)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
