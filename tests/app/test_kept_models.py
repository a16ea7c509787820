"""The final models of compared runs, where they are asked for."""

from queue import Queue

import pytest

import comigs
from comigs.app.run import resume
from comigs.app.suites.runs import kept_at, missing_of, models_at, run_one
from comigs.app.suites.suite import SuiteRun
from comigs.config.load import load_config, to_dict

pytest_plugins = ("tests.fixtures",)


class Here:
    """A worker that runs in this process."""

    def run(self, config, folder, report):
        comigs.run(to_dict(config), out=folder, report=report)
        assert (folder / "report.html").exists() is report


def test_they_are_a_run_folder_that_is_not_made_twice(tree, tmp_path):
    config = load_config(tree | {"rounds": 1, "local_steps": 1})
    runs, workers = [SuiteRun("comigs", "", config)], Queue()
    workers.put(Here())
    (tmp_path / "runs").mkdir()
    assert run_one(config, tmp_path, workers) is None
    assert kept_at(tmp_path, config).is_file() and not (tmp_path / "models").exists()
    assert missing_of(runs, tmp_path) == [] and missing_of(runs, tmp_path, True) == runs
    assert run_one(config, tmp_path, workers, keep_models=True) is None
    assert missing_of(runs, tmp_path, True) == []
    place = models_at(tmp_path, config)
    assert list((tmp_path / "work").iterdir()) == [] and list(place.rglob("optimizer*")) == []
    assert comigs.open(place).client(2).model().comigs_settings["experts"]["specialists"] == 3


def test_a_newcomer_joins_them_and_going_on_with_them_is_refused(tree, tmp_path):
    config = load_config(tree | {"rounds": 2, "local_steps": 1})
    workers = Queue()
    workers.put(Here())
    (tmp_path / "runs").mkdir()
    assert run_one(config, tmp_path, workers, keep_models=True) is None
    place = models_at(tmp_path, config)
    assert [path.name for path in (place / "server").glob("round_*")] == ["round_00002"]
    again = comigs.run(to_dict(config) | {"rounds": 1, "start": str(place)}, out=tmp_path / "new")
    assert again.finished
    with pytest.raises(comigs.BadInput, match="keeps its final models, but no round to go on from"):
        resume(place, ["rounds=3"])
    assert comigs.open(place).client("cy").model()
