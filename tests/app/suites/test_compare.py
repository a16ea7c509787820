"""Suites: which runs they hold, what is cached, and that a suite goes on where it stopped."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from comigs.app.suites import runs
from comigs.app.suites.compare import run_suite
from comigs.app.suites.suite import load_suite
from comigs.config.load import config_hash, read_suite
from comigs.errors import BadInput, ComigsError
from tests.helpers import start_cli

pytestmark = pytest.mark.slow

SUITE = """
title: A small suite
base:
  data: {name: topics, train_tokens: 400, valid_tokens: 200, test_tokens: 200, seq_len: 16}
  rounds: 1
  local_steps: 1
  batch_size: 2
  threads: 1
  log: {eval_every: 0, tensorboard: false}
methods: [pretrained, local, comigs]
grid:
  data.target: [in_distribution, mixture]
seeds: [1, 2]
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Where the suite has run for seed 1."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SUITE)
    return run_suite(str(folder / "small.yaml"), seeds="1", out=folder).parent


def test_a_suite_is_its_grid_times_methods_times_seeds_and_untrained_methods_run_once(suite):
    cells = [run.config for run in load_suite(str(suite)).runs]
    assert len(cells) == 2 * 2 * 2 + 2
    assert len({config_hash(cell) for cell in cells}) == len(cells)
    budgets = {(c.rounds, c.local_steps, c.batch_size, c.data.seq_len) for c in cells}
    assert budgets == {(1, 1, 2, 16)}


def test_finished_runs_are_kept_and_never_run_again(suite, finished, monkeypatch, capsys):
    markdown = (finished / "small" / "table.md").read_text()
    assert "| local |" in markdown and "| comigs |" in markdown
    results = sorted((finished / "runs").glob("*.json"))
    assert len(results) == 6
    kept = json.loads(results[0].read_text())
    assert {row["name"] for row in kept["final"]} and kept["config"]["data"]["name"] == "topics"
    assert not list((finished / "work").iterdir())

    def never(*args):
        raise AssertionError("a cached run was run again")

    monkeypatch.setattr(runs, "run_one", never)
    run_suite(str(suite), seeds="1", out=finished)
    assert capsys.readouterr().out.strip() in markdown
    assert (finished / "small" / "table.md").read_text() == markdown


def test_a_failing_run_is_named_and_the_others_are_kept(suite, finished, tmp_path, monkeypatch):
    def sometimes(config, folder, *rest):
        if config.method == "local":
            return "the disk is full"
        name = f"{config_hash(config)}.json"
        shutil.copy(finished / "runs" / name, folder / "runs" / name)
        return None

    monkeypatch.setattr(runs, "run_one", sometimes)
    with pytest.raises(ComigsError, match=r"2 of 6 runs failed: .*local seed 1: the disk is full"):
        run_suite(str(suite), seeds="1", out=tmp_path)
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4


def test_an_interrupted_suite_stops_its_runs_at_once(suite, tmp_path):
    suite.write_text(SUITE.replace("local_steps: 1", "local_steps: 100000"))
    process = start_cli("compare", suite, "--out", tmp_path / "out", "--jobs", 2)
    while not list((tmp_path / "out").glob("work/*/metrics.jsonl")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = [pid for task in tasks for pid in task.read_text().split()]
    process.send_signal(signal.SIGTERM)  # to this process only, as `docker stop` does
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip().endswith("interrupted; finished runs are kept; the same command goes on")
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_seeds_that_are_no_numbers_are_refused(suite):
    with pytest.raises(BadInput, match="--seeds is 'a,b'"):
        run_suite(str(suite), seeds="a,b")


def test_a_suite_whose_text_is_not_there_is_refused_before_it_starts(suite, tmp_path):
    suite.write_text(SUITE.replace("name: topics", "name: no/folder"))
    with pytest.raises(BadInput, match=r"data\.name is 'no/folder'"):
        run_suite(str(suite), out=tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_an_unknown_suite_lists_what_there_is():
    with pytest.raises(BadInput, match="quickstart"):
        read_suite("quikstart")


def test_a_row_may_have_settings_of_its_own_but_not_another_budget(suite):
    rows = "[comigs, {method: comigs, label: four, experts.specialists: 3, router.every: 1}]"
    suite.write_text(SUITE.replace("[pretrained, local, comigs]", rows))
    found = load_suite(str(suite), seeds=[1])
    assert found.rows == ["comigs", "four"]
    assert [run.config.experts.specialists for run in found.runs] == [1, 3] * 2
    suite.write_text(SUITE.replace("[pretrained, local, comigs]", "[{method: local, rounds: 9}]"))
    with pytest.raises(BadInput, match="row 'local' sets rounds, which all rows"):
        load_suite(str(suite))
    suite.write_text(SUITE.replace("[pretrained, local, comigs]", "[{label: x}]"))
    with pytest.raises(BadInput, match="give its name, or settings with `method`"):
        load_suite(str(suite))


def test_rows_that_saw_another_number_of_tokens_are_not_compared(suite, finished, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*.json"):
        result = json.loads(path.read_text())
        if result["config"]["method"] == "local":
            path.write_text(json.dumps(result | {"tokens": result["tokens"] - 32}))
    with pytest.raises(ComigsError, match=r"unequal budgets, in tokens: local .*, comigs "):
        run_suite(str(suite), seeds="1", out=tmp_path)
