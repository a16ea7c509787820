"""Whatever a server sends, a device answers rightly or with a code, and keeps to its folder."""

import json
import re

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comigs.config.load import load_config, to_dict
from comigs.config.settings import RunConfig
from comigs.errors import ComigsError, Refusal
from comigs.messages.order import read_config
from comigs.store.state import read_state
from comigs_clients.wire import BUNDLE, unbundle
from tests.clients.asking import Device

pytest_plugins = ("tests.fixtures",)
CODE = re.compile(r"refused \((bad-\w+|pinned|not-allowed|no-state|secagg|failed)(: [\w.-]+)?\)")
FEW = settings(max_examples=80, suppress_health_check=[*HealthCheck])
texts = st.text(max_size=20) | st.sampled_from(
    ["${oc.env:HOME}", "/etc/hostname", "../x", "a", "b", "secagg", "fedavg-moe", "quickstart", "~"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 5)
    | st.floats()
    | st.sampled_from([10**18, 10**400, -(10**18), 2**63])
    | texts
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


def paths(tree, before=()):
    for key, value in tree.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


SETTINGS = sorted(paths(to_dict(load_config())))


def changed(tree, path, value):
    tree = json.loads(json.dumps(tree))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return tree


@pytest.fixture(scope="module")
def device(tmp_path_factory, tree):
    """It has trained round 1; its private tensors are known."""
    device = Device(tmp_path_factory.mktemp("device"), tree)
    device.train(1)
    return device


def private_pieces(device):
    root = device.state / "a/clients/1"
    for stem, tensors in read_state(root, 1)[0].items():
        for name, tensor in tensors.items():
            if stem == "optimizer" or ".generalist_" not in name:
                data = tensor.numpy().tobytes()
                yield from (data[i : i + 64] for i in range(0, len(data) - 63, 64))


def answers_or_refuses(device, *arguments, **more):
    """Ask; then look at all that came back and all that was written."""
    outside = {p: b for p, b in device.files().items() if device.state not in p.parents}
    kept = (device.state / "a/pin.json").read_bytes()
    try:
        reply = device.ask(*arguments, **more)
    except ComigsError as error:
        assert CODE.fullmatch(str(error)), error
    else:
        arrays = reply.content.array_records.get("arrays", {})
        arrays = unbundle(arrays) if BUNDLE in arrays else arrays
        sent = b"".join(array.data for array in arrays.values())
        pieces = {piece for piece in private_pieces(device) if any(piece)}
        assert pieces and not [piece for piece in pieces if piece in sent]
        assert all(".generalist_" in name for name in arrays)
    now = {p: b for p, b in device.files().items() if device.state not in p.parents}
    assert now == outside
    assert (device.state / "a/pin.json").read_bytes() == kept
    assert {p.name for p in (device.state / "a/clients").iterdir()} == {"1"}


@pytest.mark.slow
@FEW
@given(st.sampled_from(SETTINGS), anything)
def test_any_value_of_any_setting_is_read_as_data_or_refused(path, value):
    text = json.dumps(changed(to_dict(load_config()), path, value))
    try:
        assert isinstance(read_config(text), RunConfig)
    except Refusal as error:
        assert error.code == "bad-config"
        assert error.public == "refused (bad-config)"


@FEW
@given(st.text(max_size=60) | anything.map(json.dumps) | st.binary(max_size=40).map(repr))
def test_any_text_is_a_configuration_or_refused(text):
    try:
        assert isinstance(read_config(text), RunConfig)
    except Refusal as error:
        assert error.code == "bad-config"


@FEW
@given(st.sampled_from(SETTINGS), anything)
def test_a_run_that_is_begun_answers_to_no_other_setting(device, path, value):
    text = json.dumps(changed(device.tree, path, value))
    answers_or_refuses(device, "query", text=text)


numbers = st.integers(-3, 5) | st.sampled_from([10**18, 2**62]) | st.booleans() | st.floats()


@settings(FEW, max_examples=60)
@given(
    st.sampled_from(["train", "evaluate", "query", "train.keys", "train.shares", "train.unmask"]),
    st.dictionaries(
        st.sampled_from(["server_round", "state_round", "proximal_mu", "more"]),
        numbers | st.text(max_size=9),
    ),
)
def test_any_order_is_done_or_refused(device, kind, fields):
    answers_or_refuses(device, kind, **fields)


def fake(shape, dtype, data):
    return Array(dtype, shape, "numpy.ndarray", data)


arrays = st.builds(
    fake,
    st.lists(st.integers(0, 20), max_size=3).map(tuple),
    st.sampled_from(["float32", "int64", "object", "nonsense"]),
    st.binary(max_size=200) | st.binary(max_size=90).map(lambda b: b"\x93NUMPY\x01\x00" + b),
) | st.builds(
    lambda n, value: Array(np.full((2, n), value, np.float32)),
    st.sampled_from([0, 1, 16, 64]),
    st.floats(width=32),
)
names = st.sampled_from(
    [
        "bundle",
        "transformer.h.0.mlp.c_fc.lora_A.generalist_0.weight",
        "transformer.h.0.mlp.c_fc.lora_A.specialist_0.weight",
        "transformer.h.0.mlp.c_fc.delta_A.generalist_0.weight",
        "transformer.h.0.mlp.router.weight",
        "0/transformer.h.0.mlp.router.weight",
        "../../x",
    ]
)


@settings(FEW, max_examples=60)
@given(st.dictionaries(names, arrays, min_size=1, max_size=3))
def test_any_arrays_are_taken_or_refused(device, content):
    answers_or_refuses(device, "train", arrays=ArrayRecord(content), server_round=2, state_round=1)


records = st.fixed_dictionaries(
    {},
    optional={
        "clients": st.lists(st.integers(-1, 4), max_size=4),
        "values": st.lists(st.binary(max_size=60), max_size=8),
        "threshold": numbers,
        "count": numbers,
        "lost": st.lists(st.integers(-1, 4), max_size=3),
        "more": st.integers(0, 1),
    },
)


@pytest.fixture(scope="module")
def secure(tmp_path_factory, tree):
    tree = tree | {"experts": {"specialists": 1, "rank": 2}, "privacy": {"secure": "secagg"}}
    device = Device(tmp_path_factory.mktemp("secure"), tree)
    device.ask("train.keys", server_round=1)
    return device


@settings(FEW, max_examples=60)
@given(st.sampled_from(["train", "train.shares", "train.unmask"]), records)
def test_no_record_of_secure_aggregation_makes_a_device_send_anything(secure, kind, record):
    numbers = {"server_round": 1} | ({"state_round": 0} if kind == "train" else {})
    record = {k: v for k, v in record.items() if v != []} | {"clients": record.get("clients", [])}
    with pytest.raises(ComigsError, match=CODE):
        secure.ask(kind, records={"secagg": ConfigRecord(record)}, **numbers)
