"""How far a long step is: a bar with the time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Watch = Callable[[str, int, int | None], None]  # step, how far, of how much
EVERY = 30.0  # seconds between two lines


@contextmanager
def steps() -> Iterator[Watch]:
    """Gives what is told how far a step is, in whatever it counts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = TextColumn("[bold]{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("", total=None)
        now = ""

        def show(step: str, done: int, total: int | None) -> None:
            nonlocal now
            if step != now:  # the time left is that of this step
                now = step
                bars.reset(task, description=step, total=total)
            bars.update(task, completed=done, total=total)

        yield show


def _lines(console: Console, clock: Callable[[], float] = time.monotonic) -> Watch:
    began, last, now = clock(), clock(), ""

    def show(step: str, done: int, total: int | None) -> None:
        nonlocal began, last, now
        if step != now:
            began, now = clock(), step
        if (time_now := clock()) - last < EVERY:
            return
        last, spent = time_now, time_now - began
        if total and done:
            left = spent / done * (total - done)
            console.print(f"{step}: {done / total:.0%}, about {left:.0f} s left", highlight=False)
        else:
            console.print(f"{step} ...", highlight=False)

    return show
