"""`comigs data ...`: make a federation of a data set, and look at one."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from comigs.cli.base import Debug, expanded, fail
from comigs.errors import BadInput, ComigsError

if TYPE_CHECKING:
    from comigs.prepare.prepare import Prepared

app = typer.Typer(
    no_args_is_help=True,
    help="Make a federation of a data set, and look at one. The whole way: docs/data.md.",
)


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or folder of .jsonl, .csv, .parquet or .txt, a data set that "
            "save_to_disk wrote, or an id on the hub."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.", callback=expanded)],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=COLUMN,...",
            help="Which columns make an example, e.g. prompt=question,completion=answer.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="One client for each value of this column."),
    ] = None,
    clients: Annotated[int | None, typer.Option(help="How many clients to make.")] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How to share out: iid (default), dirichlet, pathological, shards, linear, "
            "exponential or square.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of labels.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Of dirichlet: the smaller, the more clients differ.")
    ] = None,
    per_client: Annotated[
        int | None,
        typer.Option(help="Labels (pathological) or shards (shards) of each client; default 2."),
    ] = None,
    min_examples: Annotated[
        int | None, typer.Option(help="Leave out clients that have fewer.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    split: Annotated[
        str, typer.Option(help="Which split of a data set that has several.")
    ] = "train",
    subset: Annotated[
        str | None, typer.Option(help="Which subset of a data set that has several.")
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out lines that cannot be read.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write one folder for each client, with train, valid and test.txt.

    \b
    comigs data prepare chats.jsonl --by user --out my-data
    comigs data prepare qa.csv --columns prompt=question,completion=answer --clients 4 --out my-data
    comigs data prepare news.parquet --clients 8 --partition dirichlet --label topic --alpha 0.5 \\
        --out my-data
    """
    from comigs.prepare.settings import Settings, columns_of

    try:
        try:
            from comigs.prepare.prepare import prepare
        except ImportError as error:
            raise BadInput(
                f"comigs data prepare needs datasets and flwr-datasets ({error}): "
                "pip install 'comigs[data]'"
            ) from None
        settings = Settings(
            columns=columns_of(columns),
            by=by,
            clients=clients,
            partition=partition,
            label=label,
            alpha=alpha,
            per_client=per_client,
            min_examples=min_examples,
            seed=seed,
            split=split,
            subset=subset,
            skip_damaged=skip_damaged,
        )
        with Steps() as steps:
            done = prepare(source, out, settings, steps.show)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)
    _show(done, label is not None)
    typer.echo(f"\nwrote {out}; go on with:\n  comigs run data={shlex.quote(str(out))}")


class Steps:
    """What is being done, and how far it is: a line on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bars.add_task("reading", total=None)

    def __enter__(self) -> "Steps":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def show(self, step: str, done: int, total: int | None) -> None:
        """Say how far a step is."""
        self.bars.update(self.task, description=step, completed=done, total=total)


SHOWN = 40  # clients in a table
MIXED = 3  # labels that a row spells out


def _show(done: "Prepared", labelled: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from comigs.report.narrow import fitting

    console = Console()
    rows = done.clients[:SHOWN]

    def build(shown: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("client", no_wrap=True)
        for name in shown:
            table.add_column(name, justify="left" if name == "labels" else "right", no_wrap=True)
        for row in rows:
            texts = {name: f"{count:,}" for name, count in row.examples.items()}
            texts["bytes"] = f"{sum(row.bytes.values()):,}"
            texts["labels"] = escape(_mix(row.labels))
            table.add_row(escape(row.client), *(texts[name] for name in shown))
        return table

    columns = ["train", "valid", "test", "bytes", *(["labels"] if labelled else [])]
    console.print(fitting(build, columns, ("labels", "bytes", "valid", "test"), console))
    if len(done.clients) > SHOWN:
        typer.echo(f"... and {len(done.clients) - SHOWN} more clients")
    counts = done.counts
    typer.echo(f"\n{counts.read:,} rows read as {done.shape}, {counts.kept:,} examples kept")
    for count, what in (
        (counts.damaged, "damaged, skipped"),
        (counts.empty, "empty, dropped"),
        (counts.duplicates, "duplicates of an earlier example, dropped"),
        (done.left_out, "clients with too few examples, left out"),
        (done.unused, "examples that belong to no client, left out"),
    ):
        if count:
            typer.echo(f"{count:,} {what}")


def _mix(labels: dict[str, int]) -> str:
    """The most frequent labels of a client and their shares."""
    total = sum(labels.values())
    most = sorted(labels.items(), key=lambda item: -item[1])
    parts = [f"{name[:20]} {count / total:.0%}" for name, count in most[:MIXED]]
    return ", ".join(parts) + (", ..." if len(most) > MIXED else "")
