"""What leaves a device in a whole run: what its method shares and a few numbers, nothing else."""

import json
from pathlib import Path

import pytest
import torch
from flwr.common.serde import message_to_proto

import comigs
from comigs.config.load import load_config
from comigs.data.tokens import client_data
from comigs.messages.codecs import encode
from comigs.messages.fields import MIDPOINT
from comigs.methods import all_methods, find_method
from comigs.methods.base import GLOBAL
from comigs.mixture.deltas import is_delta
from comigs.store.state import read_state, saved_rounds
from comigs_server.grids.inline import InlineGrid

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def replies(monkeypatch):
    """Every reply of a run, as it comes."""
    caught, pull = [], InlineGrid.pull_messages

    def captured(self, ids):
        answered = pull(self, ids)
        for reply in answered:
            fields = {key: sorted(record) for key, record in reply.content.items()}
            caught.append((reply, message_to_proto(reply).SerializeToString(), fields))
        return answered

    monkeypatch.setattr(InlineGrid, "pull_messages", captured)
    return caught


def saved(folder):
    """Every tensor that the clients saved in any round: (file stem, name, tensor)."""
    for root in (folder / "clients").glob("*"):
        for number in saved_rounds(root):
            for stem, tensors in read_state(root, number)[0].items():
                for name, tensor in tensors.items():
                    yield stem, name, tensor


def pieces(data, size=64):
    """`size` bytes at a time, those that are not all 0."""
    parts = (data[i : i + size] for i in range(0, len(data) - size + 1, size))
    return {part for part in parts if any(part)}


@pytest.mark.parametrize("name", list(all_methods()))
def test_no_private_name_tensor_or_text_is_in_any_reply_of_a_run(tree, tmp_path, replies, name):
    """Every reply as protobuf, against 64-byte pieces of all that the clients saved and read."""
    tree = tree | {"method": name, "experts": {"specialists": 1, "rank": 2}}
    comigs.run(tree, out=tmp_path)
    method, sent = find_method(name), b"".join(data for _, data, _ in replies)
    config = load_config(tree)
    for client in range(3):
        data = client_data(config, client)
        for tokens in (data.train, data.valid, *data.tests.values()):
            for dtype in (torch.int16, torch.int32, torch.int64):
                found = pieces(torch.as_tensor(tokens).to(dtype).numpy().tobytes())
                assert found and not [piece for piece in found if piece in sent]
        words = (Path(config.data.name) / f"{data.name}.txt").read_bytes()
        assert not [piece for piece in pieces(words, 16) if piece in sent]
    if not method.trains:
        assert not (tmp_path / "clients").exists()
        assert b"lora" not in sent
        return
    private, shared, moments, own = set(), set(), set(), set()
    for stem, tensor_name, tensor in saved(tmp_path):
        found = {(tensor_name, piece) for piece in pieces(tensor.numpy().tobytes())}
        if stem == "optimizer":
            moments |= found
        elif stem == "kept":
            (shared if tensor_name.startswith((GLOBAL, MIDPOINT)) else private).update(found)
        elif method.twin:  # what travels under these names is the global model
            own |= found
        elif method.shares(tensor_name):
            shared |= found
        elif not is_delta(tensor_name):
            private |= found
    assert moments
    assert shared or name in ("centralized", "comigs-2s", "local", "local-moe")
    assert private or all(method.shares(n) for n, _ in shared)
    assert bool(own) == bool(method.twin)
    assert [n for n, piece in private | moments | own if piece in sent] == []
    assert [n for n, _ in private if n.encode() in sent] == []
    assert (b".router." in sent) == any(".router." in n for n, _ in shared)
    assert b".specialist_" not in sent
    assert [n for n, piece in shared if piece not in sent] == []  # so the search does find things


@pytest.mark.parametrize("codec", ["bf16", "int8", "topk-int8"])
def test_no_private_tensor_is_in_any_reply_in_the_form_of_a_codec(tree, tmp_path, replies, codec):
    config = load_config(tree | {"payload": {"codec": codec, "keep": 0.5}})
    comigs.run(tree | {"payload": {"codec": codec, "keep": 0.5}}, out=tmp_path)
    sent, shares = b"".join(data for _, data, _ in replies), find_method("comigs").shares
    hidden = [(n, t) for stem, n, t in saved(tmp_path) if stem != "tensors" or not shares(n)]
    assert {stem for stem, *_ in saved(tmp_path)} >= {"tensors", "optimizer"}
    for name, tensor in hidden:
        packed = encode(config.payload, {name: tensor})[name].tobytes()
        raw = tensor.numpy().tobytes()
        assert [piece for piece in pieces(packed, 16) | pieces(raw, 16) if piece in sent] == []
    sent_down = read_state(tmp_path / "server", 2)[0]["shared"]
    for client in range(3):  # so the search does find things
        before, after = (read_state(tmp_path / f"clients/{client}", n)[0] for n in (2, 3))
        for name, start in sent_down.items():
            update = after["tensors"][name] - start + before["unsent"][name]
            packed = encode(config.payload, {name: update})[name].tobytes()
            assert all(piece in sent for piece in pieces(packed, 16))


def test_replies_hold_exactly_these_fields(tree, tmp_path, replies):
    """Whoever adds a field to a reply meets this list, and the one in comigs/messages/fields.py."""
    comigs.run(tree, out=tmp_path)
    seen = {}
    for reply, _, fields in replies:
        seen.setdefault(reply.metadata.message_type, []).append(fields)
        for key in ("hello", "final"):
            if key in reply.content:
                body = json.loads(reply.content[key]["json"])
                for row in body if key == "final" else [body]:
                    assert sorted(row) == FIELDS[key]
    assert set(seen) == {"query", "train", "evaluate"}
    for fields in seen["query"]:
        assert fields == {"hello": ["json"]}
    for fields in seen["evaluate"]:
        assert fields == {"final": ["json"], "metrics": ["num-examples"]}
    shared = {client: sorted(s) for client, s in shapes(replies).items()}
    for number, fields in enumerate(seen["train"]):
        assert set(fields) == {"arrays", "metrics"}
        assert set(fields["metrics"]) - {"valid_ppl"} == set(FIELDS["metrics"])
        assert fields["arrays"] == shared[number % 3]


FIELDS = {
    "hello": ["client", "name", "rounds", "shapes"],
    "final": [
        "after", "before", "bits_per_byte", "name", "pretrained", "test_tokens", "trainable",
        "valid",
    ],
    "metrics": [
        "balance", "eval_seconds", "loss", "num-examples", "round", "router_steps",
        "router_tokens", "seconds", "steps", "tokens", "train_seconds",
    ],
}  # fmt: skip


def shapes(replies):
    hellos = [json.loads(r.content["hello"]["json"]) for r, *_ in replies if "hello" in r.content]
    return {about["client"]: about["shapes"] for about in hellos}


@pytest.mark.parametrize("field", ["arrays", "metrics", "more"])
def test_a_field_that_the_builder_did_not_make_is_refused_by_the_server(
    tree, tmp_path, monkeypatch, field
):
    """A handler that adds to the reply of `train_reply` loses every round."""
    from flwr.app import Array, MetricRecord

    import comigs_clients.app

    make = comigs_clients.app.train_reply

    def adds(*arguments):
        reply = make(*arguments)
        if field == "arrays":
            reply.content["arrays"]["h.0.router.weight"] = Array(torch.ones(2).numpy())
        elif field == "metrics":
            reply.content["metrics"]["words"] = 3
        else:
            reply.content["more"] = MetricRecord({"words": 3})
        return reply

    monkeypatch.setattr(comigs_clients.app, "train_reply", adds)
    with pytest.raises(comigs.ComigsError, match="round 1: 0 of 3 clients answered"):
        comigs.run(tree, out=tmp_path)
