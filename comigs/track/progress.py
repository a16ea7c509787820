"""What `comigs run` shows: live progress, and the final table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, assert_never

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from comigs.config.settings import RunConfig
from comigs.report.narrow import fitting
from comigs.store.chosen import RoundChosen
from comigs.store.events import (
    Abandoned,
    Arrived,
    ClientTrained,
    Damaged,
    Dropped,
    Ended,
    Evaluated,
    Event,
    Failed,
    Joined,
    Late,
    RoundDone,
    Started,
)
from comigs.store.extended import Extended
from comigs.store.metrics import gain
from comigs.store.passing import (
    AskedAgain,
    Away,
    Broke,
    EvaluationStarted,
    FolderMade,
    LinesDamaged,
    Opened,
    Refused,
    RoundStarted,
    Submitted,
    Waiting,
)

MANY = 20  # clients; more are counted, not named


class Progress:
    """Draws a run's events: a line for each round, and on a terminal bars below them.

    Args:
        live: whether there are bars; None: on a terminal.
        console: instead of standard error; its owner draws the bars, and no round has a line.

    Attributes:
        folder: the run folder, once the run has one.
    """

    def __init__(self, live: bool | None = None, console: Console | None = None) -> None:
        self.owned = console is not None
        self.console = console or Console(stderr=True, force_terminal=live)
        self.live = self.console.is_terminal
        self.folder: str | None = None
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=self.owned or not self.live,
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

    def start(self, config: RunConfig, folder: Path) -> None:
        pass

    def end(self, finished: bool) -> None:
        pass

    def note(self, text: str) -> None:
        """Show what is no event."""
        self._say(text, markup=False)

    def event(self, event: Event) -> None:
        """Show one event."""
        match event:
            case FolderMade():
                self.folder = event.folder
                self._say(f"run folder {event.folder}", markup=False)
            case Submitted():
                self._say(f"Flower run {event.run}; the SuperLink's flower-superexec starts it")
                self.bars.update(self.rounds, note="submitted")
            case Waiting():
                note = f"waiting for clients: {event.clients} of {event.of} are there"
                self.bars.update(self.rounds, note=note)
                if not self.live:
                    self._say(note)
            case Away():
                self.bars.update(self.rounds, note="[yellow]the SuperLink is away[/yellow]")
            case Started():
                self._started(event)
            case RoundStarted():
                self.bars.reset(self.clients, total=event.clients, visible=True, note="")
            case EvaluationStarted():
                self.bars.update(self.rounds, note="testing the final models")
                self.bars.reset(self.clients, total=event.clients, visible=True, note="")
            case ClientTrained():
                speed = event.tokens / max(event.train_seconds, 1e-9)
                note = f"{escape(event.name)}: loss {event.loss:.3f}, {speed:,.0f} tokens/s"
                self.bars.update(self.clients, advance=1, note=note)
            case Evaluated():
                self.bars.update(self.clients, advance=1, note=escape(event.name))
            case RoundDone():
                note = ", ".join(_notes(event))
                self.bars.update(self.rounds, completed=event.round, note=note)
                if not self.owned:
                    self._say(f"round {event.round}: {note}")
            case Dropped():
                self.bars.update(self.clients, advance=1)
            case Failed():
                self._failed(event)
            case Refused():
                self._trouble("red", f"{event.name} is refused", event.reason)
            case Damaged():
                reason = f"{event.reason}; falling back to the round before"
                self._trouble("yellow", f"round {event.round} cannot be used", reason)
            case LinesDamaged():
                lines = ", ".join(map(str, event.lines[:5]))
                reason = f"what is readable goes on, the file as it was is {event.kept}"
                self._trouble("yellow", f"metrics.jsonl, line {lines}: damaged", reason)
            case Abandoned():
                self._trouble("yellow", f"round {event.round} is abandoned", event.reason)
            case Joined():
                note = f"{event.name} joins in round {event.round}, with what is shared by then"
                self._say(note, markup=False)
            case RoundChosen() | Extended():
                self._say(event.told)
            case AskedAgain():
                self._say(
                    f"asked again, having been at work: {', '.join(event.clients[:MANY])}",
                    markup=False,
                )
            case Late() | Arrived() | Ended() | Opened() | Broke():
                pass
            case _:
                assert_never(event)

    def _started(self, event: Started) -> None:
        self._say(f"{event.method} on {listed(event.clients)}", markup=False)
        if event.round:
            self._say(f"going on after round {event.round}")
        self.bars.update(self.rounds, total=event.rounds, completed=event.round, note="starting")

    def _failed(self, event: Failed) -> None:
        where = "" if event.round is None else f"round {event.round}: "
        self._trouble("red", f"{where}client {event.name} failed", event.reason)
        self.bars.update(self.clients, advance=1)

    def _trouble(self, colour: str, what: str, reason: str) -> None:
        self._say(f"[{colour}]{escape(what)}:[/{colour}] {escape(reason)}")

    def _say(self, text: str, markup: bool = True) -> None:
        self.console.print(text, highlight=False, markup=markup, soft_wrap=True)

    def table(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Print the final table of a run to standard output."""
        out = Console()
        out.print(final_table(rows, out))
        out.print(
            "Test perplexity, lower is better. before: after the client's last local training; "
            "after: with the final averaged generalists; gain: pretrained / after.",
            style="dim",
        )
        out.print(f"{folder}/report.html", highlight=False, soft_wrap=True, markup=False)


def listed(names: Sequence[str]) -> str:
    """Names of clients, or how many there are."""
    return ", ".join(names) if len(names) <= MANY else f"{len(names):,} clients"


def _notes(event: RoundDone) -> Iterator[str]:
    """What is worth telling of a round."""
    if event.loss is not None:
        yield f"loss {event.loss:.3f}"
    if event.valid_ppl is not None:
        untrained = " of the bare base" if event.round == 1 else ""
        yield f"valid ppl {event.valid_ppl:.1f}{untrained}"
    yield f"{event.tokens_per_second:,.0f} tokens/s"
    if isinstance(event.epsilon, float):
        yield f"epsilon {event.epsilon:.2f}"
    if (clock := event.sim_clock) is not None:
        yield f"simulated {clock:.1f} s" if clock < 120 else f"simulated {clock / 60:,.1f} min"
    if event.arrived is not None:
        yield f"{event.arrived} arrived"
    if event.staleness:
        yield f"staleness {event.staleness:.1f}"
    if clock is not None:
        if event.late:
            yield f"{event.late} late"
        if event.dropped:
            yield f"{event.dropped} dropped"
        if event.abandoned:
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
