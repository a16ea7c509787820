"""Nothing is written through a link, into a pipe, or half."""

import os

import pytest

import comigs
from comigs.errors import BadInput
from comigs.report.page import write_report
from comigs.store.whole import append, locked, write_whole

pytest_plugins = ("tests.fixtures",)


def link(path, target):
    path.symlink_to(target)


def fifo(path, target):
    os.mkfifo(path)


def folder(path, target):
    path.mkdir()


@pytest.mark.parametrize("other", [link, fifo, folder])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_whole(path, "new"),
        lambda path: append(path, "new"),
        lambda path: locked(path).__enter__(),
    ],
    ids=["write", "append", "lock"],
)
def test_what_is_no_plain_file_is_refused_and_left_alone(tmp_path, other, write):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    other(tmp_path / "file", secret)
    with pytest.raises(BadInput, match=r"(not a|no) plain file"):
        write(tmp_path / "file")
    assert secret.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "file"}


def test_a_dangling_link_is_not_followed(tmp_path):
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput):
        write_whole(tmp_path / "file", "new")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")
    write_whole(path, b"new", 0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o077 == 0
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            write_whole(path, "never")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.html", "environment.json", ".lock", "metrics.jsonl"])
@pytest.mark.parametrize("other", [link, fifo])
def test_a_run_folder_with_a_link_out_of_it_is_refused(finished, tmp_path, name, other):
    import shutil

    secret, run = tmp_path / "secret", shutil.copytree(finished, tmp_path / "run")
    secret.write_text("mine")
    (run / name).unlink(missing_ok=True)
    other(run / name, secret)
    with pytest.raises(BadInput):
        comigs.app.run.resume(run)
    if name == "report.html":
        with pytest.raises(BadInput):
            write_report([run])
    assert secret.read_text() == "mine"
