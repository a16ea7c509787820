"""`comigs data ...`: make a federation of a data set, and look at one."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Debug, expanded, fail
from comigs.errors import BadInput, ComigsError

app = typer.Typer(
    no_args_is_help=True,
    help="Make a federation of a data set, and look at one. The whole way: docs/data.md.",
)


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="What to read; see above.")],
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
    held_out: Annotated[
        int | None,
        typer.Option(help="So many clients do not train: all others are tested on their examples."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    split: Annotated[
        str | None, typer.Option(help="Which split of a data set that has several; default train.")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Which subset of a data set that has several.")
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out lines that cannot be read.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write one folder for each client, with train, valid and test: .jsonl of chats, .txt of text.

    SOURCE is a file or a folder of .jsonl, .json, .csv, .parquet or .txt, a data set that
    save_to_disk wrote, or an id on the hub.

    \b
    comigs data prepare chats.jsonl --by user --out my-data
    comigs data prepare qa.csv --columns prompt=question,completion=answer \\
        --clients 4 --out my-data
    comigs data prepare news.parquet --clients 8 --partition dirichlet \\
        --label topic --alpha 0.5 --out my-data
    """
    from comigs.cli.datashow import show_prepared
    from comigs.prepare.settings import Settings, columns_of
    from comigs.track.steps import steps

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
            held_out=held_out,
            seed=seed,
            split=split,
            subset=subset,
            skip_damaged=skip_damaged,
        )
        with steps() as show:
            done = prepare(source, out, settings, show)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)
    show_prepared(done, label is not None)
    typer.echo(f"\nwrote {out}; go on with:\n  comigs run data={shlex.quote(str(out))}")


@app.command()
def describe(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="What to look at; see above.")],
    model: Annotated[
        str | None, typer.Option(help="Whose tokenizer counts; default: the quickstart's.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write it as one page (.html), too, with pictures.", callback=expanded),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what each client has, what is there twice, and how much the clients differ.

    DIR is the folder of a federation, or a bundled one: multilingual, topics,
    domains, skills.

    \b
    comigs data describe my-data
    comigs data describe multilingual --model my-model
    comigs data describe my-data --page my-data.html
    """
    from comigs.cli.datashow import show_description
    from comigs.config.load import load_config
    from comigs.prepare.describe import describe
    from comigs.track.steps import steps

    try:
        if page and not page.parent.is_dir():
            raise BadInput(f"--page is {str(page)!r}; there is no folder {page.parent}")
        with steps() as show:
            found = describe(folder, model or load_config(None).model.name, show)
        if page:
            from comigs.data.corpus import federation_folder
            from comigs.report.federation import labels_of, write_federation

            labels = labels_of(federation_folder(folder))
            write_federation(found, labels, Path(folder).name or folder, page)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except ComigsError as error:
        fail(error, debug)
    show_description(found)
    if page:
        typer.echo(f"\nwrote {page}")
