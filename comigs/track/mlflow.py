"""MLflow: one MLflow run for each run folder, where MLFLOW_TRACKING_URI says."""

from pathlib import Path
from typing import Any

import mlflow

from comigs.config.load import config_hash, identity
from comigs.config.settings import RunConfig
from comigs.store.events import Event
from comigs.track.scalars import scalars_of

FOLDER = "comigs.folder"  # tag that a resumed run is found by


class MLflow:
    """Parameters that decide the numbers, and metrics by round, in experiment `comigs`."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""

    def start(self, config: RunConfig, folder: Path) -> None:
        self._client, place = mlflow.MlflowClient(), str(folder.resolve())
        experiment = mlflow.set_experiment("comigs").experiment_id
        earlier = self._client.search_runs([experiment], f"tags.`{FOLDER}` = '{_quoted(place)}'")
        if earlier:
            self._run = earlier[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {FOLDER: place, "comigs.hash": config_hash(config)}
        made = self._client.create_run(experiment, run_name=folder.resolve().name, tags=tags)
        self._run = made.info.run_id
        for key, value in identity(config).items():
            self._client.log_param(self._run, key, value)

    def event(self, event: Event) -> None:
        number, scalars = scalars_of(event)
        for tag, value in scalars.items():
            self._client.log_metric(self._run, tag, value, step=number or 0)

    def end(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


TRACKER = MLflow
