"""What `comigs run` shows: live progress, and the final table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from comigs.store.metrics import gain
from comigs.track.narrow import fitting

MANY = 20  # clients; more are counted, not named


class Progress:
    """Draws a run's events on a terminal, or one line per round where there is none.

    Attributes:
        folder: the run folder, once the run has one.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.folder: str | None = None
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.rounds = self.bars.add_task("rounds", total=None, note="loading model and text")
        self.clients = self.bars.add_task("clients", total=None, note="", visible=False)

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def watch(self, event: dict[str, Any]) -> None:
        """Show one event."""
        handler = getattr(self, "_on_" + event["event"].replace(" ", "_"), None)
        if handler:
            handler(event)

    def _on_folder(self, event: dict[str, Any]) -> None:
        self.folder = event["folder"]
        self.console.print(f"run folder {self.folder}", highlight=False, markup=False)

    def _on_submitted(self, event: dict[str, Any]) -> None:
        self.console.print(
            f"Flower run {event['run']}; the SuperLink's flower-superexec starts it",
            highlight=False,
            soft_wrap=True,
        )
        self.bars.update(self.rounds, note="submitted")

    def _on_waiting(self, event: dict[str, Any]) -> None:
        note = f"waiting for clients: {event['clients']} of {event['of']} are there"
        self.bars.update(self.rounds, note=note)
        if not self.console.is_terminal:
            self.console.print(note, highlight=False)

    def _on_away(self, event: dict[str, Any]) -> None:
        self.bars.update(self.rounds, note="[yellow]the SuperLink is away[/yellow]")

    def _on_start(self, event: dict[str, Any]) -> None:
        names = ", ".join(event["clients"][:MANY])
        if (count := len(event["clients"])) > MANY:
            names = f"{count:,} clients"
        self.console.print(f"{event['method']} on {names}", highlight=False, markup=False)
        if event["round"]:
            self.console.print(f"going on after round {event['round']}", highlight=False)
        self.bars.update(
            self.rounds, total=event["rounds"], completed=event["round"], note="starting"
        )

    def _on_round_started(self, event: dict[str, Any]) -> None:
        self.bars.reset(self.clients, total=event["clients"], visible=True, note="")

    def _on_evaluation_started(self, event: dict[str, Any]) -> None:
        self.bars.update(self.rounds, note="testing the final models")
        self.bars.reset(self.clients, total=event["clients"], visible=True, note="")

    def _on_client(self, event: dict[str, Any]) -> None:
        speed = event["tokens"] / max(event["train_seconds"], 1e-9)
        note = f"{escape(event['name'])}: loss {event['loss']:.3f}, {speed:,.0f} tokens/s"
        self.bars.update(self.clients, advance=1, note=note)

    def _on_final(self, event: dict[str, Any]) -> None:
        self.bars.update(self.clients, advance=1, note=escape(event["name"]))

    def _on_failure(self, event: dict[str, Any]) -> None:
        where = f"round {event['round']}: " if "round" in event else ""
        self.console.print(
            f"[red]{where}client {escape(event['name'])} failed:[/red] {escape(event['reason'])}",
            highlight=False,
        )
        self.bars.update(self.clients, advance=1)

    def _on_dropped(self, event: dict[str, Any]) -> None:
        self.bars.update(self.clients, advance=1)

    def _on_damaged(self, event: dict[str, Any]) -> None:
        self.console.print(
            f"[yellow]round {event['round']} cannot be used:[/yellow] {escape(event['reason'])}; "
            "falling back to the round before",
            highlight=False,
        )

    def _on_refused(self, event: dict[str, Any]) -> None:
        self.console.print(
            f"[red]{escape(event['name'])} is refused:[/red] {escape(event['reason'])}",
            highlight=False,
        )

    def _on_damaged_lines(self, event: dict[str, Any]) -> None:
        lines = ", ".join(map(str, event["lines"][:5]))
        self.console.print(
            f"[yellow]metrics.jsonl, line {lines}: damaged;[/yellow] what is readable goes on, the "
            f"file as it was is {escape(event['kept'])}",
            highlight=False,
            soft_wrap=True,
        )

    def _on_abandoned(self, event: dict[str, Any]) -> None:
        self.console.print(
            f"[yellow]round {event['round']} is abandoned:[/yellow] {escape(event['reason'])}",
            highlight=False,
        )

    def _on_round(self, event: dict[str, Any]) -> None:
        note = ", ".join(_notes(event))
        self.bars.update(self.rounds, completed=event["round"], note=note)
        if not self.console.is_terminal:
            self.console.print(f"round {event['round']}: {note}", highlight=False, soft_wrap=True)

    def table(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Print the final table of a run to standard output."""
        out = Console()
        out.print(final_table(rows, out))
        out.print(
            "Test perplexity, lower is better. before: after the client's last local training; "
            "after: with the final averaged generalists.",
            style="dim",
        )
        out.print(f"{folder}/report.html", highlight=False, soft_wrap=True, markup=False)


def _notes(event: dict[str, Any]) -> Iterator[str]:
    """What is worth telling of a round."""
    if event["loss"] is not None:
        yield f"loss {event['loss']:.3f}"
    if event["valid_ppl"] is not None:
        yield f"valid ppl {event['valid_ppl']:.1f}"
    yield f"{event['tokens_per_second']:,.0f} tokens/s"
    if event.get("epsilon") is not None:
        yield f"epsilon {event['epsilon']:.2f}"
    if "sim_clock" in event:
        clock = event["sim_clock"]
        yield f"simulated {clock:.1f} s" if clock < 120 else f"simulated {clock / 60:,.1f} min"
        yield from (f"{event[kind]} {kind}" for kind in ("late", "dropped") if event[kind])
        if event["abandoned"]:
            yield "[yellow]abandoned: too few updates in time[/yellow]"


NUMBERS = ("pretrained", "before", "after", "gain", "up", "down", "seconds")


def final_table(rows: list[dict[str, Any]], console: Console | None = None) -> Table:
    """The final table of a run as Rich draws it; on a narrow console with fewer columns."""
    console = console or Console()

    def build(columns: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("client", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            texts = _texts(row)
            table.add_row(escape(row["name"]), *(texts[column] for column in columns))
        if len(rows) > 1:
            keys = ("pretrained", "before", "after")
            means = {key: _perplexity(sum(r[key] for r in rows) / len(rows)) for key in keys}
            table.add_row("mean", *(means.get(column, "") for column in columns), style="bold")
        return table

    expendable = ("seconds", "down", "up", "gain", "before", "pretrained")
    return fitting(build, NUMBERS, expendable, console)


def _texts(row: dict[str, Any]) -> dict[str, str]:
    gained = gain(row)
    return {
        **{key: _perplexity(row[key]) for key in ("pretrained", "before", "after")},
        "gain": "-" if gained is None else f"{gained:.1f}x",
        "up": _megabytes(row["bytes_up"]),
        "down": _megabytes(row["bytes_down"]),
        "seconds": f"{row['seconds']:.0f}",
    }


def _perplexity(value: float) -> str:
    return f"{value:.1f}" if value < 1e5 else f"{value:.3g}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
