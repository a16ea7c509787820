"""Introductions and updates that do not fit: each costs its own client the round."""

import json
import math
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.config.load import load_config
from comigs.federation.run import resolve
from comigs_clients.wire import decode, encode
from comigs_server.fleet.exchange import Answer, Client
from comigs_server.fleet.judge import Fault, judge
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.shapes import of_one_shape
from comigs_server.grids.embedded import EmbeddedGrid

A, B = "l.lora_A.generalist_0.weight", "l.lora_B.generalist_0.weight"
SHAPES = {A: (8, 3), B: (4, 8)}
CLIENT = Client(0, 1, "ana", frozenset(), SHAPES)
RUN = resolve(load_config({"clients": 3}))
NUMBERS = {
    "round": 1, "loss": 1.0, "num-examples": 9, "tokens": 4, "router_tokens": 0,
    "train_seconds": 1.0, "eval_seconds": 0.0, "seconds": 1.0,
}  # fmt: skip
HELLO_ = {
    "client": 0, "name": "ana", "rounds": [1], "shapes": {n: list(s) for n, s in SHAPES.items()}
}  # fmt: skip
ODD = [
    None, True, False, -1, 0, 10**18, 10**400, 1e308, -1e308, math.nan, math.inf, "", "[/x]",
    "a\nb", "<script>", [], [[]], {}, {"a": 1}, [10**400], ["x"] * 3, "\x1b[2J", "\ud800",
]  # fmt: skip


@pytest.fixture(autouse=True)
def identities(tmp_path):
    class Grid(EmbeddedGrid):
        def pull_messages(self, message_ids):
            return []

    Grid(3, str(tmp_path), None)  # sets what a Message needs


def message(content):
    return Message(content, dst_node_id=0, message_type="train")


def in_json(kind, value):
    return RecordDict({kind: ConfigRecord({"json": value})})


def said(kind, values):
    return message(in_json(kind, json.dumps(values)))


def array(data, shape=(4, 8)):
    return Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=data)


def honest(fill=0.01):
    return ArrayRecord({n: Array(torch.full(s, fill).numpy()) for n, s in SHAPES.items()})


def judged(arrays, numbers=NUMBERS, client=CLIENT):
    reply = message(RecordDict({"arrays": arrays, "metrics": MetricRecord(numbers)}))
    verdict = judge(Answer(client, reply), RUN, 1, lambda client: {})
    reason = verdict.reason if isinstance(verdict, Fault) else None
    assert len(reason or "") < 400
    return reason


HEADERS = [
    b"{'a': (", b'"""', b"  {'descr': 1}", b"{'descr': '<f4'", b"(" * 900, b"[" * 60 + b"]" * 60,
    b"\xff\xfe", b"", b"{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9,), }",
    b"{'descr': 'O', 'fortran_order': False, 'shape': (4, 8), }",
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_does_not_parse_is_one_clients_fault(header):
    data = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    arrays = ArrayRecord({A: honest()[A], B: array(data)})
    assert judged(arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"num-examples": 10**18},
        {"num-examples": 0},
        {"tokens": 2**62},
        {"loss": math.nan},
        {"seconds": -1.0},
        {"seconds": 1e300},
        {"valid_ppl": math.nan},
        {"client": 1},
        {"bytes_up": 1},
    ],
)
def test_numbers_beyond_their_bounds_are_refused(change):
    assert judged(honest()) is None
    assert judged(honest(), NUMBERS | change)


def asked(reply, registry=None):
    """Why the registry does not take the node that answers so, or None."""
    registry = registry or Registry(SimpleNamespace(get_node_ids=lambda: [7]), RUN)

    def collect(grid, messages, strangers, timeout):
        return [Answer(stranger, reply) for stranger in strangers]

    with patch("comigs_server.fleet.registry.collect", collect):
        failed = registry.look()
    return failed[0].reason if failed else None


@pytest.mark.parametrize(
    "values",
    [
        RecordDict({}),
        RecordDict({"hello": ConfigRecord({})}),
        in_json("hello", "{"),
        in_json("hello", 3),
        in_json("hello", "[" * 100_000),
        in_json("hello", '{"client": ' + "9" * 5000 + "}"),
        [HELLO_],
        HELLO_ | {"client": 3},
        HELLO_ | {"client": True},
        HELLO_ | {"client": "0"},
        HELLO_ | {"rounds": [-1]},
        HELLO_ | {"rounds": list(range(100_000))},
        HELLO_ | {"name": "a\x1b[2J"},
        HELLO_ | {"name": "a" * 10_000},
        HELLO_ | {"shapes": {A: [16, 3], B: [4, 16]}},
        HELLO_ | {"shapes": {A: [8, 3]}},
        HELLO_ | {"shapes": {A: [8, 2**30], B: [4, 8]}},
        HELLO_ | {"shapes": {"l.router.weight": [8, 3]}},
        HELLO_ | {"event": "round"},
    ],
)
def test_an_introduction_that_cannot_be_is_one_clients_fault(values):
    assert asked(said("hello", HELLO_)) is None
    reply = message(values) if isinstance(values, RecordDict) else said("hello", values)
    assert asked(reply).startswith("its introduction")


def test_clients_of_another_base_are_told_from_the_others():
    def client(number, width):
        return Client(number, number, "x", frozenset(), {A: (8, width), B: (4, 8)})

    clients = [client(0, 5), client(1, 3), client(2, 3)]
    good, odd = of_one_shape(RUN, clients, {})
    assert [c.id for c in good] == [1, 2]
    assert [a.client.id for a in odd] == [0]
    good, odd = of_one_shape(RUN, clients, {A: torch.zeros(8, 5)})
    assert [c.id for c in good] == [0]


odd = st.sampled_from(ODD)


def _through_the_wire(reply):
    return decode(encode(reply))


@given(st.sampled_from([*sorted(HELLO_), "more"]), odd, st.booleans())
@settings(max_examples=150)
def test_any_field_of_an_introduction_may_be_anything(key, value, wired):
    reply = said("hello", HELLO_ | {key: value})
    reason = asked(_through_the_wire(reply) if wired else reply) or ""
    assert len(reason) <= 300
    assert "\n" not in reason


@given(
    st.sampled_from(sorted(NUMBERS)), st.integers(-(2**63), 2**63 - 1) | st.floats(), st.binary()
)
@settings(max_examples=150)
def test_any_part_of_an_update_may_be_anything(key, value, data):
    judged(honest(), NUMBERS | {key: value})
    judged(ArrayRecord({A: honest()[A], B: array(data)}))
    judged(ArrayRecord({A: honest()[A], B: array(b"\x93NUMPY\x01\x00" + data)}))
