"""The final models of compared runs, where they are asked for."""

import shutil
from queue import Queue

import pytest

import comigs
from comigs.app.run import resume
from comigs.app.suites.runs import kept_at, missing_of, models_at, run_one
from comigs.app.suites.suite import SuiteRun
from comigs.app.suites.tally import Tally
from comigs.config.load import load_config, to_dict

pytest_plugins = ("tests.fixtures",)


class Here:
    """A worker that runs in this process."""

    def run(self, config, folder, report):
        comigs.run(to_dict(config), out=folder, report=report)
        assert (folder / "report.html").exists() is report


def test_they_are_a_run_folder_that_is_not_made_twice(tree, tmp_path):
    config = load_config(tree | {"rounds": 1, "local_steps": 1})
    runs, workers, quiet = [SuiteRun("comigs", "", config)], Queue(), Tally(quiet=True)
    workers.put(Here())
    (tmp_path / "runs").mkdir()
    assert run_one(config, tmp_path, workers) is None
    assert kept_at(tmp_path, config).is_file() and not (tmp_path / "models").exists()
    assert missing_of(runs, tmp_path, quiet) == []
    assert missing_of(runs, tmp_path, quiet, True) == runs
    assert run_one(config, tmp_path, workers, keep_models=True) is None
    assert missing_of(runs, tmp_path, quiet, True) == []
    place = models_at(tmp_path, config)
    assert list((tmp_path / "work").iterdir()) == [] and list(place.rglob("optimizer*")) == []
    assert comigs.open(place).client(2).model().comigs_settings["experts"]["specialists"] == 3


def test_a_result_of_other_text_or_another_base_is_not_taken_for_it(
    tree, federation, tiny_model, tmp_path, capsys
):
    text, base = tmp_path / "text", tmp_path / "base"
    shutil.copytree(federation, text)
    shutil.copytree(tiny_model, base)
    own = {"data": tree["data"] | {"name": str(text)}, "model": {"name": str(base)}}
    config = load_config(tree | own | {"rounds": 1, "local_steps": 1})
    runs, workers, tally = [SuiteRun("comigs", "", config)], Queue(), Tally()
    workers.put(Here())
    (tmp_path / "runs").mkdir()
    assert run_one(config, tmp_path, workers) is None
    before = (text / "bo.txt").read_text("utf-8")
    (text / "bo.txt").write_text(before.replace("mira", "arim"), "utf-8")
    assert missing_of(runs, tmp_path, tally) == runs
    assert "1 kept runs began with other text, or another base: run anew" in capsys.readouterr().err
    (text / "bo.txt").write_text(before, "utf-8")
    assert missing_of(runs, tmp_path, tally) == []
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    assert missing_of(runs, tmp_path, tally) == runs
    shutil.rmtree(text)  # the table can be made without it
    assert missing_of(runs, tmp_path, tally) == []


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
