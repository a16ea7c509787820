"""`comigs generate` and `comigs chat`: what clients of a finished run write."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.cli.base import Debug, check_run, decoded, expanded, fail
from comigs.errors import BadInput, ComigsError
from comigs.heap import importing
from comigs.schema.bounds import WORD
from comigs.store.plain import MIB, read_plain

if TYPE_CHECKING:
    from comigs.talk.sampling import Sampling
    from comigs.use.conversation import Conversation
    from comigs.use.stage import Stage

RunFolder = Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)]
Whose = Annotated[str, typer.Option(metavar="CLIENT", help="A number, from 0, or a name.")]
Seed = Annotated[int, typer.Option(min=0, max=WORD, help="Seed of the sampling.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Temperature = Annotated[
    float, typer.Option(min=0, max=10, help="Lower is surer; 0 takes the likeliest token.")
]
TopP = Annotated[
    float, typer.Option(max=1, help="Draw from the likeliest tokens with this share together.")
]
TopK = Annotated[
    int | None,
    typer.Option(min=0, help="Draw from so many tokens, 0: all; default the model's, or 50."),
]
Repetition = Annotated[
    float | None,
    typer.Option(max=10, help="Above 1: against repeating; default the model's, or 1."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="A text that ends it and is not written. May be given several times."),
]
PROMPTS = 16 * MIB  # most bytes of a file of prompts
HELP = "/reset forgets what was said, /client NAME lets another answer; Ctrl-D ends"


def generate(
    run_folder: RunFolder,
    prompt: Annotated[str | None, typer.Argument(help="Text to continue.")] = None,
    client: Whose = "0",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 60,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    top_k: TopK = None,
    repetition_penalty: Repetition = None,
    stop: Stop = None,
    seed: Seed = 0,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Ask in a chat, or continue the text; default as the client was trained.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="The base's and the generalist's text beside it."),
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with a prompt in each line.", callback=expanded),
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Continue a prompt with one client's own mixture of experts, or let it answer.

    A client that was trained on chats is asked in a chat, with the template of its training.

    \b
    comigs generate runs/my-run --client 2 "Il file"
    comigs generate runs/my-run --client 2 "Il file" --compare
    comigs generate runs/my-run --client 2 --prompts questions.txt --temperature 0
    """
    try:
        check_run(run_folder)
        texts = _texts(prompt, prompts)
        with importing():
            from comigs.use.generate import open_stages

        [stage] = open_stages(run_folder, [client], device, beside=compare)
        sampling = _asked(tokens, temperature, top_p, top_k, repetition_penalty, stop, seed)(
            stage.sampling
        )
        in_chat = stage.chats[0] if chat is None else chat
        if in_chat and chat is None:
            typer.echo(
                f"{stage.names[0]} was trained on chats and is asked in one; "
                "--no-chat continues the text",
                err=True,
            )
        _write_all(stage, texts, sampling, in_chat)
    except ComigsError as error:
        fail(error, debug)


def chat_command(
    run_folder: RunFolder,
    client: Whose = "0",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 200,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.9,
    top_k: TopK = None,
    repetition_penalty: Repetition = None,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Talk to one client's model; it reads the whole chat each time.

    Within the chat, /reset forgets what was said and /client fr lets fr answer. Ctrl-C ends an
    answer, Ctrl-D the chat. Lines may also come from a pipe.

    \b
    comigs chat runs/my-run --client 2
    """
    try:
        check_run(run_folder)
        with importing():
            from comigs.use.conversation import Conversation
            from comigs.use.generate import open_stages

        def stage_of(who: str) -> "Stage":
            return open_stages(run_folder, [who], device)[0]

        ask_for = _asked(tokens, temperature, top_p, top_k, repetition_penalty, None, seed)
        console = Console(highlight=False)
        talk = Conversation(stage_of(client), ask_for)
        _introduce(talk.stage, console)
        for line in _lines(console):
            if line.startswith("/"):
                _obey(line, talk, stage_of, console)
            elif line:
                _answer(line, talk, console)
    except ComigsError as error:
        fail(error, debug)


def _texts(prompt: str | None, prompts: Path | None) -> list[str]:
    if (prompt is None) == (prompts is None):
        raise BadInput("give a prompt, or a file of prompts with --prompts")
    if prompts is None:
        return [prompt or ""]
    try:
        text = read_plain(prompts, prompts.parent, PROMPTS).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"--prompts {prompts} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"--prompts {prompts} is not UTF-8 (byte {error.start})") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadInput(f"--prompts {prompts} holds no prompts")
    return lines


def _asked(
    tokens: int,
    temperature: float,
    top_p: float,
    top_k: int | None,
    repetition_penalty: float | None,
    stop: Sequence[str] | None,
    seed: int,
) -> "Callable[[Sampling], Sampling]":
    """What makes the sampling that is asked for from the one of the model's settings."""

    def of(own: "Sampling") -> "Sampling":
        return replace(
            own,
            tokens=tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=own.top_k if top_k is None else top_k,
            repetition_penalty=own.repetition_penalty
            if repetition_penalty is None
            else repetition_penalty,
            stop=tuple(stop or ()),
            seed=seed,
        )

    return of


def _write_all(stage: "Stage", texts: Sequence[str], sampling: "Sampling", chat: bool) -> None:
    """Write behind every prompt: by every voice of the stage, in one batch."""
    from comigs.data.chats import Turn
    from comigs.talk.batch import write

    voices = len(stage.names)
    prompts = [
        stage.prompt(voice, (Turn("user", text),) if chat else text, sampling)
        for text in texts
        for voice in range(voices)
    ]
    alone = len(prompts) == 1
    if voices > 1 or (chat and alone):
        said = [""] * len(prompts)
    else:
        said = [f"{text}\n" for text in texts] if chat else [stage.shown(p) for p in prompts]
    if alone:
        typer.echo(said[0], nl=False)
    for number, piece in write(stage.batch(), prompts):
        said[number] += piece
        if alone:
            typer.echo(piece, nl=False)
            sys.stdout.flush()
    if alone:
        typer.echo()
    elif voices == 1:
        typer.echo("\n\n".join(said))
    else:
        for number, text in enumerate(texts):
            _show_beside(text, stage.names, said[number * voices :][:voices])


def _show_beside(prompt: str, names: Sequence[str], said: Sequence[str]) -> None:
    """What the voices wrote, the client's own last."""
    console = Console(highlight=False)
    table = Table(title=escape(prompt), title_justify="left", show_lines=False)
    order = [*range(1, len(names)), 0]
    for voice in order:
        table.add_column(escape(names[voice]), overflow="fold", ratio=1)
    table.add_row(*(escape(said[voice].strip()) for voice in order))
    console.print(table)


def _introduce(stage: "Stage", console: Console) -> None:
    console.print(f"{escape(stage.names[0])} answers; {HELP}", style="dim")
    if not stage.chats[0]:
        console.print(
            f"{escape(stage.names[0])} was trained on text, not on chats: expect little",
            style="dim",
        )


def _lines(console: Console) -> Iterator[str]:
    """What the user says, until the end of the input."""
    if not sys.stdin.isatty():
        yield from (decoded(line).strip() for line in sys.stdin.buffer)
        return
    import readline  # noqa: F401  lines can be edited, and come again

    while True:
        try:
            yield console.input("[bold]>[/] ").strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            raise typer.Exit(130) from None


def _obey(
    line: str, talk: "Conversation", stage_of: "Callable[[str], Stage]", console: Console
) -> None:
    command, _, rest = line.partition(" ")
    if command == "/reset":
        talk.reset()
        console.print("forgotten", style="dim")
    elif command == "/client" and rest.strip():
        try:
            talk.stage = stage_of(rest.strip())
        except BadInput as error:
            console.print(escape(str(error)), style="dim")
        else:
            _introduce(talk.stage, console)
    else:
        console.print(HELP, style="dim")


def _answer(line: str, talk: "Conversation", console: Console) -> None:
    forgotten = talk.forgotten
    pieces = talk.ask(line)
    try:
        for piece in pieces:
            console.out(piece, end="", highlight=False)
            console.file.flush()
    except KeyboardInterrupt:
        pieces.close()
    except BadInput as error:
        console.print(escape(str(error)), style="dim")
        return
    console.print()
    if talk.forgotten > forgotten:
        console.print("(the model's context is full: the oldest turns are forgotten)", style="dim")
