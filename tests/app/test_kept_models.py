"""The final models of compared runs, where they are asked for."""

from queue import Queue

import comigs
from comigs.app.suites.runs import kept_at, missing_of, models_at, run_one
from comigs.app.suites.suite import SuiteRun
from comigs.config.load import load_config, to_dict

pytest_plugins = ("tests.fixtures",)


class Here:
    """A worker that runs in this process."""

    def run(self, config, folder):
        comigs.run(to_dict(config), out=folder)


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
