"""What leaves a device: the tensors of the share mask, bit for bit, and nothing of any other."""

import pytest
import torch
from flwr.common.serde import message_to_proto

import comigs
from clients.payload import build_payload, payload_bytes, unpack
from comigs.deltas import is_delta
from comigs.errors import ComigsError
from comigs.methods import all_methods, find_method
from comigs.state import read_state, saved_rounds
from server.grids.inline import InlineGrid

pytest_plugins = ("tests.fixtures",)

NAMES = ("h.0.lora_A.generalist_0.weight", "h.0.lora_B.specialist_0.weight", "h.0.router.weight")
TENSORS = {name: torch.arange(6.0).reshape(2, 3) + i for i, name in enumerate(NAMES)}
SHARED = NAMES[0]


def shares(name):
    return ".generalist_" in name


def test_only_shared_tensors_are_packed_and_come_out_as_they_went_in():
    out = unpack(build_payload(TENSORS, shares))
    assert list(out) == [SHARED]
    assert out[SHARED].dtype == torch.float32
    assert torch.equal(out[SHARED], TENSORS[SHARED])
    assert payload_bytes(out) == 24


def test_a_tensor_that_is_laid_out_differently_is_packed_by_value():
    turned = {SHARED: TENSORS[SHARED].t()}
    assert torch.equal(unpack(build_payload(turned, shares))[SHARED], turned[SHARED])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_tensor_with_nan_or_infinity_is_refused(value):
    broken = TENSORS[SHARED].clone()
    broken[1, 2] = value
    with pytest.raises(ComigsError, match=rf"'{SHARED}' holds NaN or infinity"):
        build_payload(TENSORS | {SHARED: broken}, shares)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_a_tensor_that_is_not_float32_is_refused(dtype):
    with pytest.raises(ComigsError, match=rf"'{SHARED}' is {dtype}; only float32 travels"):
        build_payload(TENSORS | {SHARED: TENSORS[SHARED].to(dtype)}, shares)


def test_private_tensors_are_not_even_looked_at():
    private = {name: torch.full((2,), torch.nan).double() for name in NAMES[1:]}
    assert list(build_payload(TENSORS | private, shares)) == [SHARED]


def pieces(folder, stem, wanted=lambda name: True):
    """What the clients saved in files of that stem, in any round: (name, 64 bytes not all 0)."""
    found = set()
    for root in (folder / "clients").glob("*"):
        for number in saved_rounds(root):
            for name, tensor in read_state(root, number)[0][stem].items():
                data = tensor.numpy().tobytes() if wanted(name) else b""
                parts = (data[i : i + 64] for i in range(0, len(data) - 63, 64))
                found |= {(name, part) for part in parts if any(part)}
    return found


@pytest.mark.parametrize("name", list(all_methods()))
def test_no_private_name_and_no_private_bytes_are_in_any_reply_of_a_run(
    tree, tmp_path, monkeypatch, name
):
    """Every reply as protobuf, against the names and 64-byte pieces of the saved states."""
    replies = []
    pull = InlineGrid.pull_messages

    def captured(self, ids):
        answered = pull(self, ids)
        replies.extend(message_to_proto(reply).SerializeToString() for reply in answered)
        return answered

    monkeypatch.setattr(InlineGrid, "pull_messages", captured)
    comigs.run(tree | {"method": name, "experts": {"specialists": 1, "rank": 2}}, out=tmp_path)
    method, sent = find_method(name), b"".join(replies)
    if not method.trains:
        assert not (tmp_path / "clients").exists()
        assert b"lora" not in sent
        return
    private = pieces(tmp_path, "tensors", lambda n: not method.shares(n) and not is_delta(n))
    shared = pieces(tmp_path, "tensors", method.shares)
    moments = pieces(tmp_path, "optimizer")
    held = {n for n, _ in private | shared}
    assert moments
    assert shared or name in ("centralized", "comigs-2s", "local", "local-moe")
    assert private or all(method.shares(n) for n in held)
    assert [n for n, piece in private | moments if piece in sent] == []
    assert [n for n, _ in private if n.encode() in sent] == []
    assert (b".router." in sent) == (name == "fedavg-moe")
    assert b".specialist_" not in sent
    assert [n for n, piece in shared if piece not in sent] == []  # so the search does find things
