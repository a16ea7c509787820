"""Checkpoints: written whole or not at all, and never believed when damaged."""

import errno
import json
import os
import shutil
import stat
import subprocess

import pytest
import torch

from comigs.errors import ComigsError
from comigs.store import state
from comigs.store.state import (
    KEEP,
    DamagedState,
    intact_rounds,
    read_state,
    round_folder,
    saved_rounds,
    write_state,
)
from tests.helpers import damage

TENSORS = {
    "tensors": {"b": torch.arange(6.0).reshape(2, 3).t(), "a": torch.tensor([1.5, -0.0])},
    "optimizer": {"step": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)},
    "nothing": {},
}
META = {"steps_done": 4, "name": "größe"}


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_written_is_read_back(tmp_path):
    write_state(tmp_path, 1, TENSORS, META)
    tensors, meta = read_state(tmp_path, 1)
    assert meta == META
    assert sorted(tensors) == sorted(TENSORS)
    for stem, group in TENSORS.items():
        assert sorted(tensors[stem]) == sorted(group)
        for name, tensor in group.items():
            assert tensors[stem][name].dtype == tensor.dtype
            assert torch.equal(tensors[stem][name], tensor)


def test_equal_states_are_equal_files(tmp_path):
    write_state(tmp_path / "one", 1, TENSORS, META)
    backwards = {stem: dict(reversed(group.items())) for stem, group in TENSORS.items()}
    write_state(tmp_path / "two", 1, backwards, META)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_folders_are_for_the_owner_only(tmp_path):
    root = tmp_path / "clients" / "0"
    write_state(root, 1, TENSORS, META)
    for folder in (root, round_folder(root, 1)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_newest_rounds_are_kept(tmp_path):
    for number in range(1, KEEP + 4):
        write_state(tmp_path, number, TENSORS, META)
    assert saved_rounds(tmp_path) == [4, 5, 6] == intact_rounds(tmp_path)


def test_a_round_that_is_asked_for_is_kept_until_another_one_is(tmp_path):
    for number in range(1, 7):
        write_state(tmp_path, number, TENSORS, META, also=2 if number > 2 else None)
    assert saved_rounds(tmp_path) == [2, 4, 5, 6]
    write_state(tmp_path, 7, TENSORS, META, also=4)
    assert saved_rounds(tmp_path) == [4, 5, 6, 7]


def test_rewriting_a_round_replaces_it_and_drops_the_rounds_after_it(tmp_path):
    """Later rounds came from what is being redone; they must not push the new ones out."""
    for number in (4, 5, 6):
        write_state(tmp_path, number, TENSORS, META)
    write_state(tmp_path, 1, TENSORS, {"again": True})
    assert saved_rounds(tmp_path) == [1]
    assert read_state(tmp_path, 1)[1] == {"again": True}


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", ["tensors.safetensors", "optimizer.safetensors", "state.json"])
def test_damage_is_noticed(tmp_path, name, how):
    write_state(tmp_path, 1, TENSORS, META)
    write_state(tmp_path, 2, TENSORS, META)
    damage(round_folder(tmp_path, 2) / name, how)
    with pytest.raises(DamagedState, match="round_00002"):
        read_state(tmp_path, 2)
    assert intact_rounds(tmp_path) == [1]


def test_every_single_byte_of_state_json_is_protected(tmp_path):
    write_state(tmp_path, 1, TENSORS, META)
    path = round_folder(tmp_path, 1) / "state.json"
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            assert read_state(tmp_path, 1)[1] == META  # white space
            assert json.loads(path.read_bytes()) == json.loads(good)
        except DamagedState:
            pass


def test_a_round_that_was_never_saved_is_a_damaged_one(tmp_path):
    with pytest.raises(DamagedState):
        read_state(tmp_path, 3)
    assert saved_rounds(tmp_path / "nowhere") == []


def test_what_an_interrupted_write_left_is_no_round_and_goes_away(tmp_path):
    write_state(tmp_path, 1, TENSORS, META)
    shutil.copytree(round_folder(tmp_path, 1), tmp_path / ".round_00002.123.tmp")
    assert saved_rounds(tmp_path) == [1]
    write_state(tmp_path, 2, TENSORS, META)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round_00001", "round_00002"]


@pytest.mark.parametrize(
    ("failing", "calls_before"),
    [("save_tensors", 0), ("save_tensors", 1), ("write_file", 0), ("_sync", 0), ("_sync", 1)],
)
def test_a_full_disk_leaves_the_earlier_rounds_and_no_rest(
    tmp_path, monkeypatch, failing, calls_before
):
    write_state(tmp_path, 1, TENSORS, META)
    before = contents(tmp_path)
    works, calls = getattr(state, failing), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > calls_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return works(*arguments)

    monkeypatch.setattr(state, failing, full)
    with pytest.raises(ComigsError, match=r"round 2 .* No space left on device; .* untouched"):
        write_state(tmp_path, 2, TENSORS, META)
    kept = {p: data for p, data in contents(tmp_path).items() if "round_00002" not in p.parts}
    assert kept == before
    assert not list(tmp_path.glob(".*"))


def mounted(folder):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_disk_that_is_really_full_leaves_the_earlier_rounds_and_no_rest(tmp_path):
    if os.geteuid() or shutil.which("mount") is None or not mounted(tmp_path):
        pytest.skip("needs to mount a small file system")
    try:
        write_state(tmp_path, 1, TENSORS, META)
        before = contents(tmp_path)
        large = {"tensors": {"a": torch.zeros(50_000)}}
        with pytest.raises(ComigsError, match="No space left on device"):
            write_state(tmp_path, 2, large, META)
        assert contents(tmp_path) == before
        assert not list(tmp_path.glob(".*"))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
