"""Weights & Biases: one W&B run for each run folder; WANDB_MODE=offline keeps it here."""

from pathlib import Path
from typing import Any

import wandb

from comigs.config.load import config_hash, to_dict
from comigs.config.settings import RunConfig
from comigs.store.events import Event
from comigs.track.scalars import scalars_of


class WandB:
    """Numbers by round, under project `comigs`; a resumed run goes on in the same W&B run."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, config: RunConfig, folder: Path) -> None:
        self._run = wandb.init(
            project="comigs",
            id=f"{folder.resolve().name}-{config_hash(config)}",
            name=folder.resolve().name,
            dir=str(folder),
            config=to_dict(config),
            resume="allow",
        )
        self._run.define_metric("*", step_metric="round number")

    def event(self, event: Event) -> None:
        number, scalars = scalars_of(event)
        if number is not None:
            self._run.log({"round number": number, **scalars})
        else:
            self._run.summary.update(scalars)

    def end(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


TRACKER = WandB
