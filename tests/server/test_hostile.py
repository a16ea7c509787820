"""A hostile or broken client loses its round, and nothing else."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.wire import decode, encode
from comigs.configload import load_config
from comigs.errors import flat
from comigs.messages.reply import Broken, read_rows
from comigs.progress import Progress
from server.exchange import Answer, Client
from server.grids.embedded import EmbeddedGrid
from server.judge import judge
from server.outliers import outliers, with_share
from server.registry import Registry
from server.shapes import of_one_shape

A, B = "l.lora_A.generalist_0.weight", "l.lora_B.generalist_0.weight"
SHAPES = {A: (8, 3), B: (4, 8)}
CLIENT = Client(0, 1, "ana", frozenset(), SHAPES)
CONFIG = load_config({"clients": 3})
NUMBERS = {
    "round": 1, "loss": 1.0, "num-examples": 9, "tokens": 4, "router_tokens": 0,
    "train_seconds": 1.0, "eval_seconds": 0.0, "seconds": 1.0,
}  # fmt: skip
HELLO_ = {
    "client": 0, "name": "ana", "rounds": [1], "shapes": {n: list(s) for n, s in SHAPES.items()}
}  # fmt: skip
ROW = {
    "name": "ana", "test_tokens": 9, "pretrained": 9.0, "valid": 8.0, "before": 7.0, "after": 6.0,
    "trainable": 3,
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
    failed, event = judge(Answer(client, reply), CONFIG, 1, lambda client: {})
    assert failed == ("reason" in event) and len(event.get("reason", "")) < 400
    return event.get("reason")


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


def test_an_update_out_of_all_proportion_is_refused_by_default():
    assert outliers({0: 1.0, 1: 2.0, 2: 500.0}) == {
        2: "sent an update of norm 500; the round's median is 2"
    }
    assert outliers({0: 1.0, 1: 500.0}) == {} == outliers({})
    assert list(outliers({0: 1.0, 1: 1e38})) == [1]
    assert outliers({0: 0.0, 1: 0.0, 2: 5.0}) == {}
    assert outliers({0: 1.0, 1: 30.0, 2: 90.0}) == {}


def test_a_client_cannot_say_more_examples_than_it_said_first():
    first = replace(CLIENT, examples=9)
    assert judged(honest(), NUMBERS, client=first) is None
    assert "it said 9 at first" in judged(honest(), NUMBERS | {"num-examples": 10}, client=first)


@given(
    st.dictionaries(st.integers(0, 9), st.integers(1, 10**12), min_size=1),
    st.floats(0.01, 1.0),
)
@settings(max_examples=100, deadline=None)
def test_no_weight_is_more_than_its_share(weights, share):
    found = with_share(weights, share)
    assert list(found) == list(weights)
    most, total = max(found.values()), sum(found.values())
    assert most / total <= max(share, 1 / len(found)) * (1 + 1e-9)
    if max(weights.values()) <= share * sum(weights.values()):
        assert found == weights


def asked(reply, registry=None):
    """Why the registry does not take the node that answers so, or None."""
    registry = registry or Registry(SimpleNamespace(get_node_ids=lambda: [7]), CONFIG)

    def collect(grid, messages, strangers, timeout):
        return [Answer(stranger, reply) for stranger in strangers]

    with patch("server.registry.collect", collect):
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
    good, odd = of_one_shape(CONFIG, clients, {})
    assert [c.id for c in good] == [1, 2]
    assert [a.client.id for a in odd] == [0]
    good, odd = of_one_shape(CONFIG, clients, {A: torch.zeros(8, 5)})
    assert [c.id for c in good] == [0]


@pytest.mark.parametrize(
    "rows",
    [
        "x",
        {},
        [],
        [ROW] * 100_000,
        [ROW, ROW],
        [ROW | {"name": "ben"}],
        [ROW | {"client": 1}],
        [ROW | {"event": "end"}],
        [ROW | {"bytes_up": 1}],
        *([ROW | {"after": value}] for value in (0, math.nan, -1e308, "9", 10**400)),
    ],
)
def test_a_final_report_that_cannot_be_is_one_clients_fault(rows):
    assert len(read_rows(json.dumps([ROW]), ["ana"])) == 1
    with pytest.raises(Broken):
        read_rows(rows if isinstance(rows, str) else json.dumps(rows), ["ana"])


def test_an_id_belongs_to_the_node_that_claimed_it_first():
    nodes = [7]
    registry = Registry(SimpleNamespace(get_node_ids=lambda: nodes), CONFIG)
    assert asked(said("hello", HELLO_), registry) is None
    for there in ([7, 8], [9]):  # the first is online, then it is away
        nodes[:] = there
        assert "which node 7 was first to be" in asked(said("hello", HELLO_), registry)
    nodes[:] = [7]
    assert asked(said("hello", HELLO_), registry) is None
    assert registry.ids == [0]


def test_texts_are_one_line_and_cut():
    assert flat("a\n[b]\x1b[2J\u202ec") == "a [b] [2J c"
    assert len(flat("x" * 50_000_000)) == 300
    reason = 'boom\ncomigs-event {"event": "end"}'
    answer = Answer(CLIENT, None, flat(reason))
    assert "\n" not in judge(answer, CONFIG, 1, lambda c: {})[1]["reason"]


@pytest.mark.parametrize("text", ["[/x] boom", "[red", "b\\", "[link=x]"])
def test_markup_in_what_a_client_says_is_shown_as_text(text, capsys):
    show = Progress()
    show.watch({"event": "failure", "name": text, "reason": text})
    show.watch({"event": "start", "method": "m", "clients": [text], "rounds": 1, "round": 0})
    show.watch({"event": "damaged", "round": 1, "reason": text})
    assert flat(text) in capsys.readouterr().err


odd = st.sampled_from(ODD)


def _through_the_wire(reply):
    return decode(encode(reply))


@given(st.sampled_from([*sorted(HELLO_), "more"]), odd, st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_field_of_an_introduction_may_be_anything(key, value, wired):
    reply = said("hello", HELLO_ | {key: value})
    reason = asked(_through_the_wire(reply) if wired else reply) or ""
    assert len(reason) <= 300
    assert "\n" not in reason


@given(st.sampled_from([*sorted(ROW), "client"]), odd)
@settings(max_examples=150, deadline=None)
def test_any_field_of_a_final_report_may_be_anything(key, value):
    with suppress(Broken):
        (row,) = read_rows(json.dumps([ROW | {key: value}]), ["ana"])
        assert row["name"] == "ana"
        assert min(row["before"], row["after"]) >= 0.99


@given(
    st.sampled_from(sorted(NUMBERS)), st.integers(-(2**63), 2**63 - 1) | st.floats(), st.binary()
)
@settings(max_examples=150, deadline=None)
def test_any_part_of_an_update_may_be_anything(key, value, data):
    judged(honest(), NUMBERS | {key: value})
    judged(ArrayRecord({A: honest()[A], B: array(data)}))
    judged(ArrayRecord({A: honest()[A], B: array(b"\x93NUMPY\x01\x00" + data)}))
