"""A suite of `comigs compare`: rows (methods) by columns (a grid of settings) by seeds."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comigs.app.early import check_names
from comigs.app.source import with_source
from comigs.config.load import load_config, read_suite
from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.methods import find_method
from comigs.schema.bounds import shown

BUDGET = (  # what all rows of a suite have in common, so that they can be compared
    "rounds",
    "local_steps",
    "batch_size",
    "participation",
    "clients",
    "data.name",
    "data.source",
    "data.target",
    "data.loss",
    "data.seq_len",
    "data.skip_small",
    "data.test_tokens",
    "model.name",
)


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite, and its place in the table."""

    row: str
    column: str
    config: RunConfig


@dataclass(frozen=True)
class Suite:
    """Every run of a suite.

    Attributes:
        rows, columns: in the order of the table.
        runs: seed by seed, each over columns and rows.
        reach: validation perplexity that methods race to, if any.
    """

    title: str
    rows: list[str]
    columns: list[str]
    runs: list[SuiteRun]
    reach: float | None = None


def load_suite(name: str, overrides: Sequence[str] = (), seeds: list[int] | None = None) -> Suite:
    """Return a suite of experiments/suites, or of a YAML file.

    What does not depend on the seed (a method that does not train) is run for the first one only.

    Args:
        overrides: `key=value` settings for every run.
        seeds: instead of the suite's.

    Raises:
        BadInput: when it is unusable; also for a row that would get another budget than the others.
    """
    tree = read_suite(name)
    rows = [_row(entry) for entry in tree["methods"]]
    points = [
        dict(zip(tree["grid"], values, strict=True))
        for values in itertools.product(*tree["grid"].values())
    ]
    labels = [label for label, _ in rows]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise BadInput(f"two rows of the suite are called {shown(twice)}; give one a label")
    columns = [" / ".join(_word(value) for value in point.values()) for point in points]
    wanted = []
    for number, seed in enumerate(seeds or tree["seeds"]):
        for column, point in zip(columns, points, strict=True):
            for label, settings in rows:
                if number and not find_method(settings["method"]).trains:
                    continue
                chosen = point | settings | {"seed": seed}
                dotted = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
                config = with_source(load_config(tree["base"], [*dotted, *overrides]))
                check_names(config)
                wanted.append((label, column, config))
    runs = [SuiteRun(label, column, as_here(config)) for label, column, config in wanted]
    return Suite(tree["title"], [label for label, _ in rows], columns, runs, tree.get("reach"))


def as_here(config: RunConfig) -> RunConfig:
    """The configuration as this machine runs it: its name is that of the result.

    With `devices.fit: derive` it says what each client's device holds, since numbers depend on it.
    """
    from comigs.costs.fit import with_fit
    from comigs.federation.machine import on_this_machine, with_compute

    if config.engine.name == "auto":  # a suite has several runs at a time instead
        config = replace(config, engine=replace(config.engine, name="inline"))
    config = on_this_machine(config)
    return with_compute(with_fit(config) if config.devices.fit == "derive" else config)


def _row(entry: Any) -> tuple[str, dict[str, Any]]:
    """Label and settings of a row: a method's name, or settings with `method` and `label`."""
    if isinstance(entry, str):
        return entry, {"method": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("method"), str):
        raise BadInput(
            f"a suite's method is {shown(entry)}; give its name, or settings with `method`"
        )
    settings = {key: value for key, value in entry.items() if key != "label"}
    if unfair := [key for key in settings if key in BUDGET]:
        raise BadInput(
            f"row {entry.get('label', entry['method'])!r} sets {unfair[0]}, which all rows of a "
            "suite must have in common; set it in base or grid"
        )
    return str(entry.get("label", entry["method"])), settings


def _word(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)
