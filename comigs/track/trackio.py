"""Trackio: a local dashboard, `trackio show --project comigs`."""

from pathlib import Path
from typing import Any

import trackio

from comigs.config.load import identity
from comigs.config.settings import RunConfig
from comigs.store.events import Event
from comigs.track.scalars import scalars_of


class Trackio:
    """Numbers by round, in project `comigs`; a resumed run goes on under the same name."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, config: RunConfig, folder: Path) -> None:
        self._run = trackio.init(
            project="comigs",
            name=folder.resolve().name,
            config={key: str(value) for key, value in identity(config).items()},
            resume="allow",
            embed=False,
        )

    def event(self, event: Event) -> None:
        number, scalars = scalars_of(event)
        if scalars:
            self._run.log(scalars, step=number)

    def end(self, finished: bool) -> None:
        trackio.finish()


TRACKER = Trackio
