"""Live progress in a notebook: one output that is drawn again and again, and stays at the end.

It needs no widgets: a saved notebook, and a page made of it, show how the run went.
"""

import io
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from comigs.config.settings import RunConfig
from comigs.store.events import Event
from comigs.track.progress import Progress

WIDTH = 110  # characters
EVERY = 0.25  # seconds between two drawings, at least
LINES = 12  # of what was said, the newest


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules.get("IPython")
    active = shell.get_ipython() if shell else None
    return "IPKernelApp" in getattr(active, "config", {})


class Notebook:
    """The lines and bars of `Progress`, without a line for each round, below the cell."""

    def __init__(self) -> None:
        self._said = _recorder()
        self._progress = Progress(console=self._said)
        self._handle: Any = None
        self._drawn = 0.0

    def start(self, config: RunConfig, folder: Path) -> None:
        self._draw()

    def event(self, event: Event) -> None:
        self._progress.event(event)
        if time.monotonic() - self._drawn >= EVERY:
            self._draw()

    def end(self, finished: bool) -> None:
        if finished:
            self._progress.bars.update(self._progress.rounds, note="finished")
        else:
            folder = self._progress.folder
            self._progress.note(f"it is not finished: comigs run --resume {folder} goes on")
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        bars = _recorder()
        bars.print(self._progress.bars.get_renderable())
        said = self._said.export_text(clear=False).splitlines()
        text = "\n".join([*said[-LINES:], bars.export_text(clear=False)])
        lines = _html(self._said).splitlines()
        html = "\n".join([*lines[-LINES:], _html(bars)])
        shown = {"text/plain": text, "text/html": f'<pre style="overflow-x: auto">{html}</pre>'}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
        self._drawn = time.monotonic()


def _recorder() -> Console:
    """A console that keeps what it prints, with its colours."""
    return Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        legacy_windows=False,
    )


def _html(console: Console) -> str:
    return console.export_html(inline_styles=True, code_format="{code}", clear=False)
