"""Files that may come from somebody else."""

import json
import lzma
import os

import pytest

from comigs.app.run import resume
from comigs.data.corpus import check_sizes, client_names, read_split
from comigs.errors import BadInput
from comigs.export.client import export_client
from comigs.store.plain import MIB, read_plain
from comigs.store.state import DamagedState, read_state, round_folder, write_state


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("not for everybody\n" * 99)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_a_file_is_read_and_unpacked(folder):
    (folder / "a.txt").write_bytes(b"abc")
    (folder / "b.txt.xz").write_bytes(lzma.compress(b"abc") + lzma.compress(b"def"))
    (folder / "c.txt").symlink_to("a.txt")
    assert read_plain(folder / "a.txt", folder, 3) == b"abc"
    assert read_plain(folder / "b.txt.xz", folder, MIB) == b"abcdef"
    assert read_plain(folder / "c.txt", folder, 3) == b"abc"


def test_what_is_too_large_is_not_read(folder):
    with open(folder / "hole.txt", "wb") as file:
        file.truncate(10**13)
    (folder / "bomb.txt.xz").write_bytes(lzma.compress(bytes(2 * MIB + 1)))
    for name in ("hole.txt", "bomb.txt.xz"):
        with pytest.raises(BadInput, match=rf"{name} is larger than 2 MiB"):
            read_plain(folder / name, folder, 2 * MIB)


@pytest.mark.parametrize("kind", ["link", "path", "linked folder", "pipe"])
def test_there_is_no_way_out_of_the_folder(folder, secret, kind):
    path = folder / "a.txt"
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "path":
        path = folder / ".." / secret.name
    elif kind == "linked folder":
        (folder / "in").symlink_to(secret.parent)
        path = folder / "in" / secret.name
    else:
        os.mkfifo(path)
    with pytest.raises(BadInput, match=r"leads out of .*put a copy|is not a file"):
        read_plain(path, folder, MIB)


def test_a_text_that_is_a_link_to_elsewhere_is_refused(folder, secret):
    (folder / "ana.txt").symlink_to(secret)
    for look in (
        lambda: read_split(str(folder), "ana", "test"),
        lambda: check_sizes(folder, ["ana"]),
    ):
        with pytest.raises(BadInput, match=r"ana.txt leads out of"):
            look()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".", ""])
def test_a_list_of_clients_names_no_paths(folder, name):
    (folder / "clients.json").write_text(json.dumps(["ana", name]))
    with pytest.raises(BadInput, match=r"clients.json does not hold a list of the clients' names"):
        client_names(str(folder))


def test_a_checkpoint_that_names_other_files_is_damaged(tmp_path, secret, monkeypatch):
    root = tmp_path / "state"
    monkeypatch.setattr("comigs.store.state.save_tensors", lambda path, group: "0" * 64)
    write_state(root, 1, {"../../secret": {}}, {})
    with pytest.raises(DamagedState, match=r"leads out of"):
        read_state(root, 1)


def test_a_checkpoint_that_is_a_link_to_elsewhere_is_damaged(tmp_path):
    write_state(tmp_path / "one", 1, {"tensors": {}}, {})
    (tmp_path / "two").mkdir()
    round_folder(tmp_path / "two", 1).symlink_to(round_folder(tmp_path / "one", 1))
    with pytest.raises(DamagedState, match=r"leads out of"):
        read_state(tmp_path / "two", 1)


def test_a_run_folder_whose_configuration_is_a_link_to_elsewhere_is_refused(folder, secret):
    (folder / "config.yaml").symlink_to(secret)
    for use in (resume, lambda run: export_client(run, 0, folder / "new")):
        with pytest.raises(BadInput, match=r"config.yaml leads out of"):
            use(folder)


def test_nothing_is_exported_through_a_link(folder, tmp_path):
    (folder / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"exists already"):
        export_client(folder, 0, folder / "out")
