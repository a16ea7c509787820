"""How `comigs data` shows what it has done: tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comigs.prepare.sources import not_read
from comigs.report.narrow import fitting

if TYPE_CHECKING:  # what it needs is a moment's work to import, and may be missing
    from comigs.prepare.describe import Description
    from comigs.prepare.prepare import Prepared

SHOWN = 40  # clients in a table
MIXED = 3  # labels that a row spells out
WORDS = ("labels", "split")  # columns that hold no numbers


def show_prepared(done: "Prepared", labelled: bool) -> None:
    """Print who got what, and what was left out."""
    console = Console(highlight=False)
    rows = done.clients[:SHOWN]

    def build(shown: Sequence[str]) -> Table:
        table = _table("client", shown)
        for row in rows:
            texts = {name: f"{count:,}" for name, count in row.examples.items()}
            texts["bytes"] = f"{sum(row.bytes.values()):,}"
            texts["labels"] = escape(_mix(row.labels))
            table.add_row(escape(row.client), *(texts[name] for name in shown))
        return table

    columns = ["train", "valid", "test", "bytes", *(["labels"] if labelled else [])]
    console.print(fitting(build, columns, ("labels", "bytes", "valid", "test"), console))
    if len(done.clients) > SHOWN:
        console.print(f"... and {len(done.clients) - SHOWN} more clients")
    counts = done.counts
    console.print(f"\n{counts.read:,} rows read as {done.shape}, {counts.kept:,} examples kept")
    for count, what in (
        (counts.damaged, "damaged, skipped"),
        (counts.empty, "empty, dropped"),
        (counts.duplicates, "duplicates of an earlier example, dropped"),
        (done.left_out, "clients with too few examples, left out"),
        (done.unused, "examples that belong to no client, left out"),
    ):
        if count:
            console.print(f"{count:,} {what}")
    if done.beside:
        console.print(escape(not_read(done.beside)))
    if done.held_out:
        names = ", ".join(done.held_out)
        console.print(escape(f"held out, for the others to be tested on: {names}"))


def _table(first: str, others: Sequence[str]) -> Table:
    """An empty table; words are to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
    return table


def _mix(labels: dict[str, int]) -> str:
    """The most frequent labels of a client and their shares."""
    total = sum(labels.values())
    most = sorted(labels.items(), key=lambda item: -item[1])
    parts = [f"{name[:20]} {count / total:.0%}" for name, count in most[:MIXED]]
    return ", ".join(parts) + (", ..." if len(most) > MIXED else "")


def show_description(found: "Description") -> None:
    """Print the splits, the matrix, and whether sharing is likely to help."""
    from comigs.report.advice import advice

    console = Console(highlight=False)
    rows = found.splits[: 3 * SHOWN]

    def build(shown: Sequence[str]) -> Table:
        table = _table("client", shown)
        for row in rows:
            texts = {
                "split": row.split,
                "parts": f"{row.parts:,}",
                "characters": f"{row.characters:,}",
                "tokens": f"{row.tokens:,}",
                "own": f"{row.own:,}",
                "others": f"{row.others:,}",
                "answers": f"{row.chats.answers:,}" if row.chats else "",
                "longest": f"{row.chats.longest:,}" if row.chats else "",
            }
            name = row.client if row.split == "train" else ""
            table.add_row(escape(name), *(texts[name] for name in shown))
        return table

    chats = [row.chats for row in found.splits if row.chats]
    more = ("answers", "longest") if chats else ()
    columns = ("split", "parts", "characters", "tokens", *more, "own", "others")
    console.print(fitting(build, columns, ("characters", "parts", *more), console))
    if (hidden := len(found.clients) - SHOWN) > 0:
        console.print(f"... and {hidden} more clients")
    tokens = sum(row.tokens for row in found.splits)
    characters = sum(row.characters for row in found.splits)
    console.print(f"\n{len(found.clients)} clients, {characters:,} characters, {tokens:,} tokens")
    console.print(
        "parts: blocks between blank lines, or lines where there are none; own: different parts "
        "that another split of the client has, too; others: that another client has, too.",
        style="dim",
    )
    if chats:
        longest = max(chat.longest for chat in chats)
        console.print(
            "of chats, parts: examples; answers: tokens that are learnt from and measured; "
            f"longest: tokens of the longest example: data.seq_len={longest - 1} cuts none.",
            style="dim",
        )
    if silent := sum(chat.silent for chat in chats):
        console.print(f"{silent:,} examples have no answer: a run drops them")
    if len(found.divergence) > 1:
        _show_matrix(found, console)
        console.print(f"\n{escape(advice(found))}")


def _show_matrix(found: "Description", console: Console) -> None:
    names = found.clients[: len(found.divergence)]
    columns = [str(number) for number in range(1, len(names) + 1)]

    def build(shown: Sequence[str]) -> Table:
        table = _table("words differ", shown)
        for number, row in enumerate(found.divergence):
            others = [int(name) - 1 for name in shown]
            cells = ["-" if other == number else f"{row[other]:.2f}" for other in others]
            table.add_row(escape(f"{number + 1} {names[number]}"), *cells)
        return table

    console.print()
    console.print(fitting(build, columns, list(reversed(columns[1:])), console))
    note = "Jensen-Shannon divergence of the words of training text: 0 alike, 1 no word in common"
    first = f"; the first {len(names)} clients" if len(names) < len(found.clients) else ""
    console.print(f"{note}{first}.", style="dim")
