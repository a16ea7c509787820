"""`comigs report`: one self-contained page about one run, or about several compared."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template

from comigs.config.load import IDENTITY_FILE, flat, read_config
from comigs.errors import BadInput
from comigs.report.page.alike import Alike, Drawn, draw
from comigs.report.page.alone import Versus, trained_alone, versus
from comigs.report.page.dumbbell import draw_dumbbell
from comigs.report.page.labels import labelled, other_data
from comigs.report.page.pictures import compared, pictures_of
from comigs.report.page.run import Run, load_run
from comigs.report.page.table import csv_link
from comigs.report.page.timeline import timeline
from comigs.report.page.tokens import Looks, to_script
from comigs.report.page.words import what_was_run
from comigs.report.plots import Picture
from comigs.store.metrics import gain
from comigs.store.whole import write_whole


@dataclass(frozen=True)
class Results:
    """Where a run's clients ended.

    Attributes:
        versus: against the base, and against training alone where a run of it is known.
        alone: perplexity of each client that trained alone, by name; {} where nothing is known.
        averaged: the final models against what they were before averaging.
    """

    versus: Sequence[Versus]
    alone: Mapping[str, float]
    averaged: Versus | None
    dumbbell: Picture | None


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    looks: Looks | None = None,
    alike: Alike | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        runs: run folders, finished or not.
        out: the file; None: report.html in the run's folder, or of several a name that tells the
            others, in the first one's.
        looks: tokens of test text (`comigs.use.looks`); None: the page says how to get them.
        alike: how alike the clients' experts are (`comigs.use.alike`); None: the same.

    Raises:
        BadInput: when a folder is not a run, or the page cannot be written.
    """
    if not runs:
        raise BadInput("no run folder given; try: comigs report runs/<name>")
    for folder in runs:
        if (Path(folder) / IDENTITY_FILE).exists():
            read_config(Path(folder))  # refuses one that was edited after its run had begun
    loaded = [load_run(Path(folder)) for folder in runs]
    differences = _differences(loaded)
    if len(loaded) > 1:
        loaded = labelled(loaded, differences)
    pictures = pictures_of(loaded[0]) if len(loaded) == 1 else compared(loaded)
    ends = {run.label: _ended(run, loaded) for run in loaded}
    page = _template().render(
        runs=loaded,
        said={run.label: what_was_run(run) for run in loaded},
        ends=ends,
        csv=csv_link(loaded, {label: end.alone for label, end in ends.items()}),
        looks=looks,
        script=to_script(looks.views) if looks else "",
        alike=_drawn(alike, loaded) if alike else None,
        alike_missing=alike.missing if alike else (),
        timelines={run.label: timeline(run) for run in loaded},
        pictures=[picture for picture in pictures if picture],
        clients=list(dict.fromkeys(row["name"] for run in loaded for row in run.rows)),
        differences=differences,
        unrouted=not any("routing/" in key for e in loaded[0].rounds for key in e.metrics or {}),
        other_data=other_data(loaded, differences),
    )
    path = out or loaded[0].folder / page_name(loaded)
    try:
        write_whole(path, page)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    return path


def page_name(runs: Sequence[Run]) -> str:
    """report.html; of several runs report-with-B.html, so that none loses its own."""
    others = "-".join(re.sub(r"[^\w.-]+", "-", run.folder.resolve().name) for run in runs[1:])
    return f"report-with-{others[:80]}.html" if others else "report.html"


def _ended(run: Run, given: Sequence[Run]) -> Results:
    rows = run.rows
    other = trained_alone(run, given)
    alone = {row["name"]: row["after"] for row in other.rows} if other else {}
    against = [versus("the base", rows, {row["name"]: row["pretrained"] for row in rows})]
    if other:
        told = f"training alone ({other.method}, run {other.folder.resolve().name})"
        against.insert(0, versus(told, rows, alone))
    before = {row["name"]: row["before"] for row in rows if row["before"] != row["after"]}
    return Results(
        [each for each in against if each],
        alone,
        versus("before averaging", rows, before),
        draw_dumbbell(rows, alone, run.label) if run.method != "pretrained" else None,
    )


def _drawn(alike: Alike, runs: Sequence[Run]) -> list[tuple[str, Drawn]]:
    """Each run's pictures, with the run's label."""
    return [
        (run.label, draw(each, f"{each.kind}-{place}"))
        for place, run in enumerate(runs)
        for each in alike.found.get(run.folder, ())
    ]


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


def _differences(runs: list[Run]) -> dict[str, list[Any]]:
    """Dotted settings that are not the same in all runs that have any, with each run's value."""
    each = [flat(run.config) for run in runs]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in each for key in one):
        if len({repr(one.get(key)) for one in each if one}) > 1:
            found[key] = [one.get(key) for one in each]
    return found
