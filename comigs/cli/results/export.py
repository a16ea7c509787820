"""`comigs export`: what one takes away of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Debug, check_run, expanded, fail
from comigs.errors import BadInput, ComigsError
from comigs.export.forms import check_form
from comigs.heap import importing


def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)],
    to: Annotated[Path, typer.Option(help="Folder to write; must not exist.", callback=expanded)],
    client: Annotated[
        str, typer.Option(metavar="CLIENT", help="Whose experts: a number, from 0, or a name.")
    ] = "0",
    generalist_only: Annotated[
        bool, typer.Option("--generalist-only", help="Only the shared experts.")
    ] = False,
    form: Annotated[str, typer.Option("--as", metavar="FORM", help="As what; see above.")] = "peft",
    expert: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which one, e.g. specialist_0.")
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            envvar="COMIGS_LLAMA_CPP",
            help="Folder of llama.cpp's sources, for its converters.",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Also upload it to this repository on the hub."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see the repository.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Take one client's model away, as a folder with a model card.

    \b
    --as peft            every expert as a plain PEFT adapter, and the routers
    --as transformers    the whole mixture with its base; loads without comigs

    \b
    Of one expert alone (--expert):
    --as merged          the base with it in its weights
    --as gguf            the same as a file for llama.cpp
    --as lora            a plain PEFT adapter, for vLLM and others
    --as lora-gguf       the same as a file for llama.cpp
    """
    try:
        check_run(run_folder)
        check_form(form, generalist_only, expert, llama_cpp)

        with importing():
            from comigs.export.client import export_client
            from comigs.export.hub import check_push, push_folder

        if push:
            check_push(push, public)
        elif public:
            raise BadInput("--public goes with --push REPO")
        export_client(run_folder, client, to, form, generalist_only, expert, llama_cpp)
        typer.echo(f"wrote {to}")
        if push:
            typer.echo(f"pushed to {push_folder(to, push, public)}")
    except ComigsError as error:
        fail(error, debug)
