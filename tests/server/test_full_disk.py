"""A disk that fills up ends the run; nothing that was saved is lost."""

import errno
import os
import shutil

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.store import state
from comigs.store.events import RoundDone
from comigs.store.state import saved_rounds
from comigs_server.journal import Journal
from tests.helpers import assert_same_numbers

pytest_plugins = ("tests.fixtures",)


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.parametrize("who", ["server", "clients"])
def test_a_disk_that_fills_up_ends_the_run_which_can_be_resumed(
    yaml_file, finished, tmp_path, monkeypatch, who
):
    write = state.write_file

    def fills_up(path, data):
        if f"/{who}/" in str(path) and "round_00003" in str(path):
            full()
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_file", fills_up)
        result = CliRunner().invoke(app, ["run", str(yaml_file), "--out", str(tmp_path)])
    assert result.exit_code == 1
    flat = " ".join(result.stderr.split())
    assert "round 3 could not be saved in" in flat
    assert "No space left on device" in flat
    assert result.stderr.splitlines()[-1].endswith(f"comigs run --resume {tmp_path}")
    assert not list(tmp_path.rglob("*.tmp"))
    assert saved_rounds(tmp_path / "server")[-1] == 2
    assert CliRunner().invoke(app, ["run", "--resume", str(tmp_path)]).exit_code == 0
    assert_same_numbers(tmp_path, finished)


@pytest.mark.slow
def test_a_disk_too_full_for_the_journal_ends_the_run_with_one_line(
    yaml_file, finished, tmp_path, monkeypatch
):
    write = Journal.write

    def fills_up(self, event):
        if isinstance(event, RoundDone) and event.round == 2:
            with monkeypatch.context() as patch:
                patch.setattr("builtins.open", full)
                write(self, event)
        write(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", fills_up)
        result = CliRunner().invoke(app, ["run", str(yaml_file), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "metrics.jsonl could not be written: No space left" in result.stderr.splitlines()[-1]
    shutil.rmtree(tmp_path / "server" / "round_00003", ignore_errors=True)
    comigs.app.run.resume(tmp_path)
    assert_same_numbers(tmp_path, finished)
