"""Trackers: three hooks, one file each; one of them may stop a run, none can break one."""

import sys

import pytest

import comigs
import comigs.track
from comigs.config.load import load_config
from comigs.errors import BadInput, Stopped
from comigs.store.events import Ended, RoundDone, Started
from comigs.store.state import saved_rounds
from comigs.track.tracker import find_trackers, tracker_names
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)


class Recorder:
    """Keeps what the hooks were told."""

    def __init__(self):
        self.calls = []

    def start(self, config, folder):
        self.calls.append(("start", config.method, folder.name))

    def event(self, event):
        self.calls.append(event)

    def end(self, finished):
        self.calls.append(("end", finished))


class Impatient(Recorder):
    """Has seen enough after a round."""

    def event(self, event):
        if isinstance(event, RoundDone) and event.round == 2:
            return "it learns nothing"
        return None


def test_the_hooks_see_the_run_from_its_start_to_its_end(tree, tmp_path):
    recorder = Recorder()
    comigs.run(tree, out=tmp_path / "run", trackers=[recorder])
    assert ("start", "comigs", "run") in recorder.calls
    told = [call for call in recorder.calls if not isinstance(call, tuple)]
    assert sum(isinstance(event, Started) for event in told) == 1
    assert isinstance(told[-1], Ended)
    assert recorder.calls[-1] == ("end", True)


@pytest.mark.slow
def test_a_run_that_a_tracker_stops_goes_on_to_the_same_numbers(tree, finished, tmp_path):
    recorder = Recorder()
    with pytest.raises(Stopped, match="it learns nothing; the state of round 2 is saved"):
        comigs.run(tree, out=tmp_path / "run", trackers=[Impatient(), recorder])
    assert saved_rounds(tmp_path / "run/server")[-1] == 2
    assert recorder.calls[-1] == ("end", False)
    comigs.app.run.resume(tmp_path / "run")
    assert_same_numbers(tmp_path / "run", finished)


@pytest.mark.parametrize("hook", ["start", "event", "end"])
def test_a_tracker_that_breaks_is_told_once_and_costs_nothing(tree, tmp_path, caplog, hook):
    def breaks(*arguments):
        raise OSError("no network")

    broken, sound = Recorder(), Recorder()
    setattr(broken, hook, breaks)
    folder = comigs.run(tree, out=tmp_path / "run", trackers=[broken, sound]).folder
    told = [r.getMessage() for r in caplog.records if "tracker Recorder broke" in r.getMessage()]
    assert len(told) == 1 and "OSError: no network" in told[0]
    assert sound.calls[-1] == ("end", True)
    assert len(events(folder, "round")) == 3


def test_trackers_are_found_by_the_names_of_their_files(monkeypatch, tmp_path):
    assert tracker_names() == ["mlflow", "tensorboard", "trackio", "wandb"]
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n\nTRACKER = Mine\n")
    monkeypatch.setattr(comigs.track, "__path__", [*comigs.track.__path__, str(tmp_path)])
    found = find_trackers(load_config({"log": {"tensorboard": False, "trackers": ["mine"]}}))
    assert [type(tracker).__name__ for tracker in found] == ["Mine"]


def test_a_tracker_that_is_not_there_is_refused_before_anything_starts(tree, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"log.trackers has 'wandbb'; did you mean 'wandb'\?"):
        comigs.run(tree | {"log": {"trackers": ["wandbb"]}}, out=tmp_path / "run")
    monkeypatch.delitem(sys.modules, "comigs.track.mlflow", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(BadInput, match=r"pip install 'comigs\[mlflow\]'"):
        comigs.run(tree | {"log": {"trackers": ["mlflow"]}}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
