"""A hostile server gets nothing that a device did not offer: codes for all that it may not ask."""

import json

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from comigs.store.state import read_state, saved_rounds
from tests.clients.asking import SECRET, Device, refused

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def device(tmp_path, tree, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    return Device(tmp_path, tree)


def deep(levels):
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "text",
    [
        '"/etc/hostname"',
        '"quickstart"',
        '["a"]',
        "7",
        "null",
        "",
        "rounds: 3",
        '{"rounds":"$\\u007boc.env:TOKEN}"}',
        '{"name":"${oc.env:TOKEN}"}',
        '{"server":{"options":{"a":[{"\\u0024{oc.env:TOKEN}":1}]}}}',
        '{"rounds":1,"rounds":2}',
        '{"flower":{"run":"a","run":"b"}}',
        '{"rounds":1e999}',
        '{"rounds":NaN}',
        '{"rounds":1' + "0" * 400 + "}",
        '{"rounds":1' + "0" * 5000 + "}",
        deep(20),
        deep(200_000),
        json.dumps({"name": "x" * 100_000}),
        json.dumps({"name": "a\x1b[31m"}),
        '{"name":"\\ud800"}',
        '{"no_such_key":1}',
        '{"rounds":true}',
        '{"data":"secret.txt"}{}',
    ],
)
def test_a_configuration_is_a_json_object_and_data(device, text):
    assert refused(device, "bad-config", "query", text=text) == set()


def test_a_configuration_that_is_no_text_is_refused(device):
    for text in (7, b"{}", ["{}"], True, 1.5):
        assert refused(device, "bad-order: config", "query", text=text) == set()


@pytest.mark.parametrize("run", ["../x", "", "/tmp/x", "a/b", ".", "..", "a\n", "x" * 200, None, 7])
def test_a_run_has_the_name_of_a_folder(device, run):
    key = "bad-config" if run is not None else "bad-config: flower.run"
    if run == 7:  # it is read as text
        device.ask("query", settings={"flower.run": run})
        assert (device.state / "7" / "pin.json").exists()
        return
    assert refused(device, key, "query", settings={"flower.run": run}) == set()


PINNED = {
    "method": "fedavg-moe",
    "privacy.secure": "secagg",
    "privacy.mechanism": "client",
    "privacy.clip": 2.0,
    "payload.codec": "int8",
    "seed": 8,
    "rounds": 4,
    "experts.rank": 4,
    "router.every": 3,
    "train.lr": 1.0,
    "data.train_tokens": 100,
    "data.name": "multilingual",
    "model.name": "comigs-tiny",
    "faults.poisoned": [1],
}


@pytest.mark.parametrize("key", PINNED)
def test_a_run_stays_what_it_was_at_first_contact(device, key):
    device.ask("query")
    for kind, numbers in (
        ("query", {}),
        ("train", {"server_round": 1, "state_round": 0}),
        ("evaluate", {"state_round": 0}),
    ):
        change = {key: PINNED[key]}
        assert refused(device, f"pinned: {key}", kind, settings=change, **numbers) == set()
    device.ask("query", settings={"log.eval_every": 0, "server.round_timeout": 9.0, "name": "b"})


@pytest.mark.parametrize(
    ("method", "later", "private"),
    [("comigs-2g", "fedavg-moe", ".router."), ("fedsa-lora", "flexlora", ".lora_B.")],
)
def test_what_is_private_in_a_method_is_not_to_be_had_by_another(device, method, later, private):
    device.tree["experts"]["specialists"] = 1
    device.tree["method"] = method
    device.train(1)
    kept = read_state(device.state / "a/clients/1", 1)[0]["tensors"]
    assert [name for name in kept if private in name]
    ask = {"server_round": 2, "state_round": 1}
    assert refused(device, "pinned: method", settings={"method": later}, **ask) == set()
    elsewhere = {"method": later, "flower.run": "b"}
    assert refused(device, "no-state: state-round", settings=elsewhere, **ask) == set()


def test_a_pin_that_is_damaged_or_leads_elsewhere_is_not_made_anew(device):
    device.ask("query")
    pin = device.state / "a" / "pin.json"
    whole = pin.read_bytes()
    for damaged in (b"", b"[]", b"\xff", whole[:-9]):
        pin.write_bytes(damaged)
        assert refused(device, "bad-pin", "query") == set()
    pin.unlink()
    pin.symlink_to(device.folder / "secret.txt")
    assert refused(device, "bad-pin", "query") == set()
    pin.unlink()
    pin.write_bytes(whole)
    device.ask("query")


@pytest.mark.parametrize(
    ("server_round", "state_round", "code"),
    [
        (0, 0, "bad-order: server-round"),
        (-1, 0, "bad-order: server-round"),
        (10**18, 0, "bad-order: server-round"),
        (4, 0, "bad-order: server-round"),
        (True, 0, "bad-order: server-round"),
        (2.0, 0, "bad-order: server-round"),
        ("2", 0, "bad-order: server-round"),
        ([2], 0, "bad-order: server-round"),
        (2, -1, "bad-order: state-round"),
        (2, 2, "bad-order"),
        (2, 3, "bad-order"),
        (3, 2, "no-state: state-round"),
    ],
)
def test_a_round_has_a_number_that_there_can_be(device, server_round, state_round, code):
    device.train(1)
    before = saved_rounds(device.state / "a/clients/1")
    numbers = {"server_round": server_round, "state_round": state_round}
    assert refused(device, code, **numbers) == set()
    assert saved_rounds(device.state / "a/clients/1") == before == [1]


def test_a_field_or_number_that_the_schema_lacks_is_refused(device):
    ask = {"server_round": 1, "state_round": 0}
    assert refused(device, "bad-order", more=1, **ask) == set()
    for mu in (-1.0, float("nan"), float("inf"), "1", 10**18):
        assert refused(device, "bad-order: proximal-mu", proximal_mu=mu, **ask) == set()


def array(tensor):
    return Array(np.asarray(tensor))


def odd_arrays(good):
    name = min(n for n in good if ".lora_A." in n)
    value = good[name].numpy()
    yield {name: array(np.full_like(value, np.nan))}
    yield {name: array(np.full_like(value, np.inf))}
    yield {name: array(value[:1])}
    yield {name: array(value[None])}
    yield {name: array(value.astype(np.float64))}
    yield {name: array(np.zeros(value.shape, np.int32))}
    yield {name: array(np.zeros(value.shape, bool))}
    yield {name.replace("generalist_0", "specialist_0"): array(value)}
    yield {"transformer.h.0.mlp.router.weight": array(value)}
    yield {name.replace(".lora_A.", ".delta_A."): array(value)}
    yield {name.replace(".lora_A.", ".stack_A."): array(value)}
    yield {f"0/{name}": array(value)}
    yield {"no.such.name": array(value)}
    yield {name: Array("float32", value.shape, "numpy.ndarray", b"")}
    yield {
        name: Array("float32", value.shape, "numpy.ndarray", b"\x93NUMPY\x01\x00\x09\x00{'a': (  ")
    }
    yield {name: Array("float32", value.shape, "pickle", b"\x80\x04.")}
    yield {"bundle": Array("uint8", (3,), "protobuf", b"\xff\xff\xff")}


def test_what_arrives_is_of_the_shared_tensors_or_refused(device):
    good = dict(device.train(1).content.array_records["arrays"])
    for arrays in odd_arrays(good):
        ask = {"server_round": 2, "state_round": 1}
        assert refused(device, "bad-arrays", arrays=ArrayRecord(arrays), **ask) == set()
        final = refused(device, "bad-arrays", "evaluate", arrays=ArrayRecord(arrays), state_round=1)
        assert final == set()
    own = read_state(device.state / "a/clients/1", 1)[0]["tensors"]
    device.train(2, 1, arrays=ArrayRecord(good))
    assert own and all(torch.isfinite(t).all() for t in own.values())
