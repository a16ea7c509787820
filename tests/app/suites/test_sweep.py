"""Sweeps: what is tried, that it is chosen on validation text, and never run twice."""

import json
import statistics

import pytest
from typer.testing import CliRunner

from comigs.app.suites.sweep import grid_of, sweep
from comigs.cli.commands import app
from comigs.errors import BadInput

pytestmark = pytest.mark.slow

SMALL = [
    "data.train_tokens=400",
    "data.valid_tokens=200",
    "data.test_tokens=200",
    "data.seq_len=16",
    "rounds=1",
    "local_steps=1",
    "batch_size=2",
    "threads=1",
]


def test_commas_outside_of_brackets_part_values():
    grid, fixed = grid_of(["lr=1,2", "experts.specialists=[1,2],[3,4]", "top=[1,2]", "seed=3"])
    assert grid == [
        ["lr=1", "lr=2"],
        ["experts.specialists=[1,2]", "experts.specialists=[3,4]"],
    ]
    assert fixed == ["top=[1,2]", "seed=3"]


def test_without_several_values_there_is_nothing_to_choose():
    with pytest.raises(BadInput, match="no setting has several values"):
        grid_of(["train.lr=0.01", "experts.specialists=[1,2]"])


def test_the_best_on_validation_text_is_chosen_and_only_its_test_is_shown(tmp_path):
    command = ["sweep", *SMALL, "train.lr=0.1,0.0001", "--seeds", "1,2", "--out", str(tmp_path)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "4 runs, 4 of them to do" in first.output
    kept = [json.loads(path.read_text()) for path in (tmp_path / "runs").iterdir()]
    assert len(kept) == 4

    def mean(lr, key):
        mine = [result for result in kept if result["config"]["train"]["lr"] == lr]
        return statistics.mean(row[key] for result in mine for row in result["final"])

    best, other = sorted((0.1, 0.0001), key=lambda lr: mean(lr, "valid"))
    words = " ".join(first.output.split())
    assert f"the best: {mean(best, 'after'):.2f}" in words
    assert f"{mean(other, 'after'):.2f}" not in words
    assert f"comigs run {' '.join(SMALL)} train.lr={best:g}" in words
    trials = sweep(None, [*SMALL, "train.lr=0.1,0.0001"], seeds=[1, 2], out=tmp_path)
    assert [len(trial.valid) for trial in trials] == [2, 2]
    assert trials[0].mean == pytest.approx(mean(best, "valid"))
    again = CliRunner().invoke(app, command)
    assert "4 runs, 0 of them to do" in again.output
