"""A client's state travels as bytes, and arrives whole or not at all."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from safetensors.numpy import save

from comigs.store.state import read_state, saved_rounds, state_root, write_state
from comigs_server.grids.inline import InlineGrid
from comigs_server.grids.shipping import lay_out, needed_state, new_state, save_state
from tests.server.grids import toy


@pytest.fixture
def run_folder(tmp_path):
    """Rounds 1 and 2 of client 3."""
    InlineGrid(toy.app, 4, str(tmp_path))  # without a grid there are no messages
    for number in (1, 2):
        tensors = {"tensors": {"w": torch.full((2, 2), float(number))}, "optimizer": {}}
        write_state(state_root(tmp_path / "run", 3), number, tensors, {"steps_done": number})
    return tmp_path / "run"


def message(**order):
    content = RecordDict({"config": ConfigRecord(order)}) if order else RecordDict()
    return Message(content, dst_node_id=4, message_type="train")


def test_only_the_round_that_is_named_travels(run_folder, tmp_path):
    far = tmp_path / "far"
    lay_out(needed_state(run_folder, message(**{"state-round": 1})), far)
    assert saved_rounds(far) == [1]
    assert read_state(far, 1)[1] == {"steps_done": 1}


def test_nothing_travels_before_round_1(run_folder, tmp_path):
    assert not lay_out(needed_state(run_folder, message(**{"state-round": 0})), tmp_path / "far")


def test_all_rounds_travel_when_none_is_named(run_folder, tmp_path):
    lay_out(needed_state(run_folder, message()), tmp_path / "far")
    assert saved_rounds(tmp_path / "far") == [1, 2]


def test_what_a_worker_saves_comes_back(run_folder, tmp_path):
    far, root = tmp_path / "far", state_root(run_folder, 3)
    known = lay_out(needed_state(run_folder, message(**{"state-round": 2})), far)
    tensors = {"tensors": {"w": torch.ones(3)}}
    write_state(far, 3, tensors, {"steps_done": 3})
    write_state(far / "final", 3, tensors, {})
    before = (root / "round_00002" / "state.json").stat().st_mtime_ns
    save_state(run_folder, message(), new_state(far, known))
    assert saved_rounds(root) == [1, 2, 3]
    assert (root / "round_00002" / "state.json").stat().st_mtime_ns == before
    for folder in (root, root / "final"):
        assert torch.equal(read_state(folder, 3)[0]["tensors"]["w"], torch.ones(3))


def test_a_round_that_the_server_may_need_again_stays(run_folder, tmp_path):
    root, pinned = state_root(run_folder, 3), message(**{"kept-round": 1})
    for number in (3, 4, 5, 6):
        far = tmp_path / str(number)
        write_state(far, number, {"tensors": {}}, {})
        save_state(run_folder, pinned if number < 6 else message(), new_state(far, ()))
        assert saved_rounds(root) == {3: [1, 2, 3], 4: [1, 2, 3, 4], 5: [1, 3, 4, 5]}.get(
            number, [4, 5, 6]
        )


@pytest.mark.parametrize(
    "path", ["../round_00001/state.json", "round_00001/../../x", "/tmp/x", "round_00001/a/b", "x"]
)
def test_nothing_but_checkpoints_is_written(run_folder, path):
    with pytest.raises(ValueError, match="no part of a checkpoint"):
        save_state(run_folder, message(), save({path: np.zeros(1, "u1")}))
    assert saved_rounds(state_root(run_folder, 3)) == [1, 2]
