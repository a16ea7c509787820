"""A finished run, opened again from its folder."""

import json
import shutil

import pytest

import comigs
from comigs.errors import BadInput
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)


def test_a_finished_run_is_what_its_run_returned(finished):
    result = comigs.open(str(finished))
    assert [row["name"] for row in result.table] == ["ana", "bo", "cy"]
    assert result.table == events(finished, "final")
    assert [(row["round"], row["client"]) for row in result.history] == [
        (event["round"], event["client"]) for event in events(finished, "client")
    ]
    assert [row["loss"] for row in result.rounds] == [
        event["loss"] for event in events(finished, "round")
    ]
    assert "event" not in result.rounds[0]
    assert result.finished
    assert list(result.frame["loss"]) == [row["loss"] for row in result.history]


def test_what_is_told_by_name_has_columns_of_its_own(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    event = events(folder, "client")[0] | {"metrics": {"router_entropy": 0.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    assert list(comigs.open(folder).frame["metrics.router_entropy"]) == [0.5]


def test_an_interrupted_run_gives_what_it_has_so_far(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:5]))  # its start, and round 1
    for final in folder.glob("clients/*/final"):
        shutil.rmtree(final)
    result = comigs.open(folder)
    assert (result.finished, result.table) == (False, [])
    assert [row["round"] for row in result.history] == [1, 1, 1]
    assert result.client(2).model().comigs_settings["experts"]["specialists"] == 3


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is not a run folder"):
        comigs.open(tmp_path)
