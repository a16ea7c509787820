"""The trackers of other packages, each without a network: what a run and its resume leave there."""

import pytest

import comigs
from comigs.errors import Stopped
from comigs.store.events import RoundDone
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


class Stops:
    """Ends a run after its first round, so that it is resumed."""

    def start(self, config, folder):
        pass

    def event(self, event):
        return "enough" if isinstance(event, RoundDone) else None

    def end(self, finished):
        pass


@pytest.fixture
def followed(tree, tmp_path, monkeypatch):
    """Run with one tracker, in two parts, in a folder of its own; returns the run folder."""

    def followed(name):
        monkeypatch.chdir(tmp_path)
        log = {"tensorboard": False, "trackers": [name], "eval_every": 1}
        with pytest.raises(Stopped):
            comigs.run(tree | {"log": log}, out=tmp_path / "run", trackers=[Stops()])
        return comigs.app.run.resume(tmp_path / "run").folder

    return followed


def test_mlflow_has_one_run_with_every_round(followed, monkeypatch, tmp_path):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    folder = followed("mlflow")
    client = mlflow.MlflowClient()
    [experiment] = client.search_experiments(filter_string="name = 'comigs'")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "comigs"
    told = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "mean/valid_ppl")]
    assert told == [(e["round"], pytest.approx(e["valid_ppl"])) for e in events(folder, "round")]
    [last] = [e["after"] for e in events(folder, "final") if e["name"] == "ana"]
    assert run.data.metrics["test_ppl/ana"] == pytest.approx(last)


def test_wandb_keeps_its_runs_here_without_a_network(followed, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = followed("wandb")
    written = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 2  # one for each part of the run, with the same id
    assert len({path.name for path in written}) == 1
    content = b"".join(path.read_bytes() for path in written)
    for tag in (b"valid_ppl/ana", b"mean/loss", b"test_ppl/cy"):
        assert tag in content


def test_trackio_has_every_round_in_its_own_folder(followed, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    folder = followed("trackio")
    content = b"".join(p.read_bytes() for p in (tmp_path / "trackio").rglob("*") if p.is_file())
    assert b"valid_ppl/ana" in content and b"mean/loss" in content
    assert len(events(folder, "round")) == 3
