"""What the server accepts from a client."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from comigs.config.load import load_config
from comigs.federation.run import resolve
from comigs.messages.codecs import encode
from comigs.messages.fields import ACTIVATIONS, MIDPOINT
from comigs.mixture.adapters import start_tensor
from comigs_server.fleet.exchange import Answer, Client
from comigs_server.fleet.judge import Fault, check_values, judge

A, B = "l.lora_A.generalist_0.weight", "l.lora_B.generalist_0.weight"
SHAPES = {A: (2, 3), B: (4, 2)}
GOOD = {name: torch.ones(shape) for name, shape in SHAPES.items()}
CLIENT = Client(0, 1, "ana", frozenset(), SHAPES)
METRICS = {
    "round": 3, "loss": 1.0, "num-examples": 9, "tokens": 4, "router_tokens": 0,
    "train_seconds": 1.0, "eval_seconds": 0.0, "seconds": 1.0,
}  # fmt: skip


def pack(arrays):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def judged(arrays, metrics=METRICS, settings=(), sent=None, **records):
    """The fault's reason, or None; the update's tensors; and the whole verdict."""
    config = load_config({}, settings)
    if not isinstance(arrays, ArrayRecord):
        arrays = pack(arrays)
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)} | records)
    reply = Message(content, dst_node_id=0, message_type="train")
    verdict = judge(Answer(CLIENT, reply), resolve(config), 3, lambda client: sent or {})
    assert verdict.client == CLIENT
    if isinstance(verdict, Fault):
        return verdict.reason, None, verdict
    return None, verdict.update.tensors, verdict


@pytest.fixture(autouse=True)
def identity(tmp_path):
    """Flower makes a message only where it knows run and node."""
    from comigs_clients.app import app
    from comigs_server.grids.inline import InlineGrid

    with InlineGrid(app, 1, str(tmp_path)):
        yield


@pytest.mark.parametrize(
    ("update", "fault"),
    [
        (GOOD, None),
        (GOOD | {"a.router.weight": torch.ones(1)}, "sent 'a.router.weight', which it does not"),
        ({A: GOOD[A]}, f"did not send '{B}'"),
        (GOOD | {B: torch.ones(4, 1)}, "with shape (4, 1), not (4, 2)"),
        (GOOD | {B: torch.ones(8)}, "with shape (8,), not (4, 2)"),
        (GOOD | {B: torch.ones(4, 2).double()}, "as float64, not float32"),
        (GOOD | {B: torch.ones(4, 2).half()}, "as float16, not float32"),
        (GOOD | {B: torch.ones(4, 2).int()}, "as int32, not float32"),
        (GOOD | {B: torch.ones(4, 2).numpy().astype(">f4")}, "as >f4, not float32"),
        (GOOD | {B: torch.full((4, 2), torch.nan)}, "with NaN or infinity"),
        (GOOD | {B: torch.full((4, 2), -torch.inf)}, "with NaN or infinity"),
        (GOOD | {B: torch.ones(400, 200)}, "in 320128 bytes; 32 are enough"),
        ({}, f"did not send '{A}'"),
    ],
)
def test_the_server_checks_what_it_gets(update, fault):
    found, *_ = judged(update)
    assert found == fault or (fault and fault in found)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"round": 2}, "its reply is of round 2; this is round 3"),
        ({"round": None}, "its reply has round"),
        ({"text": 1.0}, "its reply has text"),
        ({"valid_ppl": [1.0, 2.0]}, "its reply has valid_ppl"),
        ({"loss": float("inf")}, "its reply has loss = inf"),
    ],
)
def test_the_server_checks_what_it_is_told(change, fault):
    metrics = {k: v for k, v in (METRICS | change).items() if v is not None}
    assert fault in judged(GOOD, metrics)[0]


def test_a_reply_with_a_record_more_is_refused():
    reason, *_ = judged(GOOD, more=MetricRecord())
    assert "its reply holds 'more'" in reason


def test_data_that_is_not_what_it_says_is_refused_before_it_is_decoded():
    honest = pack(GOOD)
    huge = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1000000000000), }"
    lies = {
        "shape (4, 1000000000000), not": huge + header.ljust(117) + b"\n",
        "cannot be used": b"no array at all",
        "expected 32 bytes got 28": honest[B].data[:-4],
    }
    for reason, data in lies.items():
        lie = Array(dtype="float32", shape=(4, 2), stype="numpy.ndarray", data=data)
        assert reason in judged(ArrayRecord({A: honest[A], B: lie}))[0]
    other = Array(dtype="float32", shape=(4, 2), stype="pickle", data=honest[B].data)
    assert "cannot be used" in judged(ArrayRecord({A: honest[A], B: other}))[0]


def test_an_absurd_norm_is_refused_and_a_plausible_one_is_not():
    start = {name: start_tensor(name, shape, 42) for name, shape in SHAPES.items()}
    update = start | {B: start[B] + 1.0}  # of norm sqrt(8), from the common start
    assert judged(update, settings=["server.max_norm=2.83"])[0] is None
    reason, *_ = judged(update, settings=["server.max_norm=2.82"])
    assert reason == "sent an update of norm 2.828; server.max_norm is 2.82"
    assert judged(update, settings=["server.max_norm=0.1"], sent=update)[0] is None
    huge = update | {B: GOOD[B] * 3e38}
    assert "of norm 8.485e+38" in judged(huge, settings=["server.max_norm=9"])[0]


@pytest.mark.parametrize("beside", [f"{ACTIVATIONS}l", f"{MIDPOINT}{B}"])
def test_what_travels_beside_an_update_does_not_make_it_longer(beside):
    start = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    update = start | {B: torch.ones(4, 2), beside: torch.full((3,), 9.0)}
    assert check_values(update, start | {beside: torch.zeros(3)}, 2.83) == pytest.approx(8**0.5)


@pytest.mark.parametrize("codec", ["none", "bf16", "int8", "topk-int8"])
def test_an_accepted_update_is_decoded_and_its_bytes_are_those_that_travelled(codec):
    settings = [f"payload.codec={codec}", "payload.keep=0.5"]
    config = load_config({}, settings)
    sent = {name: torch.full(shape, 2.0) for name, shape in SHAPES.items()}
    change = {n: sent[n] + t for n, t in GOOD.items()} if codec == "none" else GOOD
    arrays = encode(config.payload, change)
    reason, decoded, accepted = judged(arrays, settings=settings, sent=sent)
    assert reason is None
    assert accepted.bytes_up == sum(array.nbytes for array in arrays.values())
    for name in SHAPES:
        values = decoded[name]
        if codec == "topk-int8":
            assert sorted(set(values.flatten().tolist())) == [2.0, 3.0]
        else:
            torch.testing.assert_close(values, torch.full(SHAPES[name], 3.0))


def test_scales_and_masks_that_make_no_sense_are_refused():
    settings = ["payload.codec=topk-int8", "payload.keep=0.5"]
    good = encode(load_config({}, settings).payload, GOOD)
    bad = {
        "with NaN or infinity": {B + "|scale": np.array([np.inf], np.float32)},
        "does not name 4 elements": {B + "|mask": np.array([0xFF], np.uint8)},
        "does not name 3 elements": {A + "|mask": np.array([0b00000111], np.uint8)},
        "as uint8, not int8": {B: good[B].view(np.uint8)},
        "with shape (3,), not (4,)": {B: good[B][:3]},
    }
    for reason, change in bad.items():
        assert reason in judged(good | change, settings=settings)[0]


@given(st.binary(max_size=400), st.sampled_from(["shape", "data", "dtype"]))
def test_no_bytes_make_the_server_raise(data, where):
    honest = pack(GOOD)
    head, tail = honest[B].data[:128], honest[B].data[128:]
    data = {"shape": head[:60] + data, "data": head + data, "dtype": data + tail}[where]
    lie = Array(dtype="float32", shape=(4, 2), stype="numpy.ndarray", data=data)
    judged(ArrayRecord({A: honest[A], B: lie}))


def test_a_metric_that_was_not_asked_for_is_refused():
    told = METRICS | {"metric.router_entropy": 0.5}
    asked = ["log.metrics=[router_entropy]"]
    assert judged(GOOD, told, asked)[2].reported.metrics == {"router_entropy": 0.5}
    found, *_ = judged(GOOD, told)
    assert found.endswith("has the metric 'router_entropy', which log.metrics does not name")
