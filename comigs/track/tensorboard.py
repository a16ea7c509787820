"""TensorBoard events of a run, in RUN/events."""

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter

from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.store.events import Event, Started
from comigs.store.metrics import events_of
from comigs.track.scalars import scalars_of


class TensorBoard:
    """Writes as the run goes; an interrupted run's earlier rounds are written anew."""

    def __init__(self) -> None:
        self._folder = Path()
        self._writer: SummaryWriter | None = None

    def start(self, config: RunConfig, folder: Path) -> None:
        check_place(folder)
        self._folder = folder

    def event(self, event: Event) -> None:
        if isinstance(event, Started):
            self.end(finished=False)
            self._writer = _begun(self._folder)
        elif self._writer:
            _add(self._writer, event)

    def end(self, finished: bool) -> None:
        if self._writer:
            self._writer.close()


def write_events(folder: Path) -> None:
    """Write RUN/events anew, from metrics.jsonl."""
    check_place(folder)
    _begun(folder).close()


def check_place(folder: Path) -> None:
    """Raise BadInput when RUN/events is not a folder of the run's own."""
    target = folder / "events"
    if target.is_symlink() or target.is_file():
        raise BadInput(f"{target} is no folder of this run; move it away")


def _begun(folder: Path) -> SummaryWriter:
    """A writer in the place of earlier ones, with what metrics.jsonl holds so far."""
    shutil.rmtree(folder / "events", ignore_errors=True)
    writer = SummaryWriter(str(folder / "events"))
    for event in events_of(folder):
        _add(writer, event)
    return writer


def _add(writer: SummaryWriter, event: Event) -> None:
    number, scalars = scalars_of(event)
    for tag, value in scalars.items():
        writer.add_scalar(tag, value, number)


TRACKER = TensorBoard
