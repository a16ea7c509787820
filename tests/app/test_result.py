"""A finished run, opened again from its folder."""

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


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is not a run folder"):
        comigs.open(tmp_path)
