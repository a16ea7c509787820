"""`comigs eval`: tasks on clients' models, beside what they were made of."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.cli.base import Debug, check_run, expanded, fail
from comigs.errors import ComigsError
from comigs.heap import importing
from comigs.report.narrow import fitting
from comigs.store.whole import check_place, write_whole

if TYPE_CHECKING:
    from comigs.use.harness import Score


def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)],
    tasks: Annotated[
        list[str],
        typer.Option(
            help="A .jsonl file of questions, a folder of them and of the harness's .yaml tasks, "
            "or a task's name (lm-eval ls tasks). May be given several times."
        ),
    ],
    client: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIENT",
            help="Whose model: a number, from 0, or a name; may be given several times. "
            "Default: all.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of each task; all by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Write the scores as JSON, too.", callback=expanded)
    ] = None,
    debug: Debug = False,
) -> None:
    """Score clients' models on tasks, beside their generalist alone and the base.

    Questions are JSON lines: {"question": ..., "choices": [...], "answer": ...} is multiple choice;
    without choices the model answers in a line of its own, which is scored by exact match and F1.
    Needs lm-evaluation-harness: pip install 'comigs[eval]'.

    \b
    comigs eval runs/my-run --client 2 --tasks questions.jsonl
    comigs eval runs/my-run --client 2 --tasks arc_easy --limit 200
    """
    try:
        check_run(run_folder)
        if out:
            check_place(out)

        if not sys.stderr.isatty():
            os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

        with importing():
            from comigs.use.harness import evaluate_tasks

        scores = evaluate_tasks(
            run_folder, client or None, tasks, limit=limit, batch_size=batch_size, device=device
        )
        show_scores(scores)
        if out:
            write_whole(out, json.dumps([asdict(score) for score in scores], indent=1) + "\n")
    except ComigsError as error:
        fail(error, debug)


def show_scores(scores: "Sequence[Score]") -> None:
    """Print a row for each task, measure and client, with a column for each model."""
    console = Console(highlight=False)
    models = list(dict.fromkeys(score.model for score in scores))
    rows = dict.fromkeys((score.task, score.metric, score.client) for score in scores)
    cells = {(score.task, score.metric, score.client, score.model): score for score in scores}

    def build(shown: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("task", overflow="ellipsis", no_wrap=True)
        for name in shown:
            named = name in ("measure", "client")
            table.add_column(name, justify="left" if named else "right", no_wrap=True)
        for row in rows:
            task, metric, client = row
            texts = {model: _shown(cells.get((*row, model))) for model in models}
            texts |= {"measure": escape(metric), "client": escape(client)}
            table.add_row(escape(task), *(texts[name] for name in shown))
        return table

    columns = ["measure", "client", *models]
    console.print(fitting(build, columns, ("base", "generalist"), console))
    console.print("± standard error; mixture: the client's own model as its run ended")


def _shown(score: "Score | None") -> str:
    if score is None:
        return ""
    return f"{score.value:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")
