"""Codecs: what arrives is near to what was sent, in exactly the bytes that were foretold."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.config.load import config_hash, load_config
from comigs.config.privacy import PayloadConfig
from comigs.costs.traffic import traffic
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.local.outgoing import outgoing
from comigs.local.reference import reference
from comigs.messages.codecs import decode, encode, unsent, wire, wire_bytes
from comigs.messages.sparse import SPARSE
from comigs.messages.update import plus
from comigs.mixture.adapters import start_tensor
from comigs.mixture.ranks import cut
from comigs.store.state import read_state
from tests.helpers import assert_same_numbers, client_of, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)

CODECS = ("none", "bf16", "int8", *SPARSE)
LOSSY = CODECS[1:4]
sizes = st.integers(1, 9)
codecs = st.builds(PayloadConfig, st.sampled_from(CODECS), st.floats(0.01, 1.0))


def tensors_of(rows, columns, seed, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, columns, generator=rng) * scale for name in ("a", "b")}


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def arrived(payload, tensors):
    return decode(payload, encode(payload, tensors), shapes_of(tensors))


@given(codecs, sizes, sizes, st.integers(0, 99))
def test_arrays_are_those_that_wire_names(payload, rows, columns, seed):
    tensors = tensors_of(rows, columns, seed)
    arrays, named = encode(payload, tensors), wire(payload, shapes_of(tensors))
    assert {n: (a.shape, str(a.dtype)) for n, a in arrays.items()} == {
        n: (w.shape, w.dtype) for n, w in named.items()
    }
    assert sum(a.nbytes for a in arrays.values()) == wire_bytes(payload, shapes_of(tensors))


@given(codecs, sizes, sizes, st.integers(0, 99), st.sampled_from([0.0, 1e-30, 1.0, 1e30]))
def test_the_error_of_each_element_has_its_bound(payload, rows, columns, seed, scale):
    tensors = tensors_of(rows, columns, seed, scale)
    for name, got in arrived(payload, tensors).items():
        sent = tensors[name]
        greatest = sent.abs().max()
        error = (got - sent).abs()
        bound = {
            "none": torch.zeros(()),
            "bf16": sent.abs() / 128,
            "int8": greatest / 250,
        }.get(payload.codec)
        if bound is None:
            bound = torch.where(
                got == 0, greatest, greatest / (1.97 * SPARSE[payload.codec].levels)
            )
        assert got.shape == sent.shape and got.dtype == torch.float32
        assert (error <= bound).all()


@given(st.floats(0.01, 1.0), sizes, sizes, st.integers(0, 99))
def test_topk_sends_the_greatest_and_keeps_the_rest(keep, rows, columns, seed):
    payload, tensors = PayloadConfig("topk-int8", keep), tensors_of(rows, columns, seed)
    got, rest = arrived(payload, tensors), unsent(payload, tensors)
    for name, sent in tensors.items():
        mask = encode(payload, tensors)[name + "|mask"]
        chosen = math.ceil(keep * sent.numel())
        assert sum(int(byte).bit_count() for byte in mask) == chosen
        least = sent.abs().flatten().sort(descending=True)[0][chosen - 1]
        assert (got[name][sent.abs() < least] == 0).all()
        torch.testing.assert_close(got[name] + rest[name], sent)


@given(st.sampled_from([127, 7]), st.floats(0.01, 1.0), sizes, sizes, st.integers(0, 99))
def test_both_orders_are_numpys_and_the_error_is_least_if_the_choice_comes_first(
    levels, keep, rows, columns, seed
):
    bits = 8 if levels > 7 else 4
    errors = {}
    for first, name in ((False, f"topk-int{bits}"), (True, f"int{bits}-topk")):
        payload, tensors = PayloadConfig(name, keep), tensors_of(rows, columns, seed)
        got = arrived(payload, tensors)
        errors[first] = sum(float((t - got[n]).double().square().sum()) for n, t in tensors.items())
        for n, tensor in tensors.items():
            flat = tensor.numpy().ravel()
            scale = np.abs(flat).max() / np.float32(levels)
            rounded = np.round(flat / scale)
            order = np.argsort(-np.abs(rounded if first else flat), kind="stable")
            wanted = np.zeros_like(flat)
            chosen = order[: math.ceil(keep * flat.size)]
            wanted[chosen] = rounded[chosen].astype(np.float32) * scale
            assert np.array_equal(got[n].numpy().ravel(), wanted)
        assert wire_bytes(payload, shapes_of(tensors)) == sum(
            math.ceil(math.ceil(keep * t.numel()) * bits / 8) + 4 + math.ceil(t.numel() / 8)
            for t in tensors.values()
        )
    assert errors[False] <= errors[True] * (1 + 1e-6) + 1e-12


@given(st.lists(st.integers(-7, 7), max_size=9))
def test_halves_of_bytes_come_back_as_they_were(values):
    numbers, held = SPARSE["topk-int4"], torch.tensor(values, dtype=torch.int8)
    packed = numbers.pack(held)
    assert (packed.size, str(packed.dtype)) == (numbers.size(len(values)), numbers.dtype)
    assert numbers.unpack(packed, len(values)).tolist() == values


def test_error_feedback_sends_everything_in_time():
    payload, update = PayloadConfig("topk-int8", 0.1), tensors_of(8, 8, 0)
    left, total = {n: torch.zeros_like(t) for n, t in update.items()}, dict.fromkeys(update, 0.0)
    for _ in range(200):
        update_and_left = {n: t + left[n] for n, t in update.items()}
        sent, left = arrived(payload, update_and_left), unsent(payload, update_and_left)
        total = {n: total[n] + sent[n] for n in total}
    for name, tensor in update.items():
        torch.testing.assert_close(total[name] / 200, tensor, rtol=0, atol=0.1)


def rounds_of(config, steps, sent_back, root):
    """What the server holds after rounds in which a client's tensors move by `steps` each."""
    shapes = {"l.lora_A.generalist_0.weight": (2, 6), "l.lora_B.generalist_0.weight": (4, 2)}
    client, held, sent, left = client_of(config), {}, {}, {}
    for number, by in enumerate(steps, 1):
        start = reference(client.run, 0, number, sent, shapes)
        trained = {name: tensor + by for name, tensor in start.items()}
        update, left = outgoing(client, number, trained, sent, left)
        moved = arrived(config.payload, update)
        held = plus(moved, reference(client.run, 0, number, sent, shapes))
        sent = sent_back(held)
    return held, {name: start_tensor(name, shape, config.seed) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("codec", "method"),
    [(codec, "comigs") for codec in CODECS[1:]]
    + [(codec, method) for codec in LOSSY[:2] for method in ("flexlora", "pcl")],
)
def test_small_steps_arrive(codec, method, tmp_path):
    """Twenty steps of 1e-4 on weights of up to 0.4 are less than a weight's rounding."""
    config = load_config({"method": method}, [f"payload.codec={codec}", "payload.keep=0.3"])
    as_sent = (lambda held: {f"0/{n}": t for n, t in held.items()}) if method == "pcl" else dict
    held, start = rounds_of(config, [1e-4] * 20, as_sent, tmp_path)
    for name, tensor in held.items():
        moved = float((tensor - start[name]).mean())
        assert moved == pytest.approx(20e-4, rel=0.1 if codec in SPARSE else 0.01)


def test_a_pruned_client_s_update_is_measured_at_its_rank():
    config = load_config({"method": "hetlora"}, ["payload.codec=int8"])
    a, b = "l.lora_A.generalist_0.weight", "l.lora_B.generalist_0.weight"
    sent = {a: torch.randn(8, 6), b: torch.randn(4, 8)}
    low = cut(sent, 4, config.experts)
    start = reference(resolve(config), 0, 2, sent, {a: (4, 6), b: (4, 4)})
    assert torch.equal(start[a], low[a]) and torch.equal(start[b], low[b])


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "comigs"},
        {"method": "fedavg", "server": {"strategy": "FedAdam"}},
        {"method": "comigs-2g", "participation": 0.6, "rounds": 4},
        {"method": "ffa-lora", "engine": {"fuse": 3}},
    ],
    ids=lambda settings: settings["method"],
)
def test_bytes_are_those_of_the_plan(codec, settings, tree, tmp_path):
    equal = {"specialists": 1 if len(settings) == 2 else [0, 1, 3], "rank": 2}
    tree = tree | settings | {"experts": equal, "payload": {"codec": codec, "keep": 0.2}}
    assert_planned(tree, tmp_path)


@pytest.mark.parametrize("codec", ["bf16", "int8"])
@pytest.mark.parametrize("method", ["hetlora", "flexlora", "flora", "fedex-lora", "pcl"])
def test_methods_that_combine_in_their_own_way_take_dense_codecs(codec, method, tree, tmp_path):
    experts = {"specialists": 1, "rank": 2}
    tree = tree | {"method": method, "experts": experts, "payload": {"codec": codec}}
    assert_planned(tree, tmp_path)


def assert_planned(tree, folder):
    result = comigs.run(tree, out=folder)
    assert not events(folder, "failure")
    for row, line in zip(result.table, traffic(resolve(result.config)).clients, strict=True):
        if result.config.method != "hetlora":
            assert (row["bytes_up"], row["bytes_down"]) == (sum(line.up), sum(line.down))
        dense = sum(e["client"] == row["client"] for e in events(folder, "client"))
        assert 0 < row["bytes_up"] < 4 * dense * row["communicated"]


@pytest.mark.slow
def test_a_codec_changes_little(tree, finished, tmp_path):
    before = {row["name"]: row["after"] for row in events(finished, "final")}
    for codec, off in {"bf16": 1e-3, "int8": 1e-3, "topk-int8": 0.05}.items():
        result = comigs.run(tree | {"payload": {"codec": codec}}, out=tmp_path / codec)
        for row in result.table:
            assert row["after"] == pytest.approx(before[row["name"]], rel=off)


@pytest.mark.parametrize("codec", LOSSY)
def test_what_is_left_out_is_private_state_and_resumes_bit_identical(codec, tree, tmp_path):
    tree = tree | {"payload": {"codec": codec}, "participation": 0.6, "rounds": 4}
    whole, resumed = run_and_resumed(tree, tmp_path, after=3)
    assert_same_numbers(resumed, whole)
    last = max(events(whole, "client"), key=lambda e: e["round"])
    tensors, _ = read_state(whole / "clients" / str(last["client"]), last["round"])
    assert tensors["unsent"]
    assert all(".generalist_" in name for name in tensors["unsent"])


def test_the_server_and_the_client_agree_on_what_topk_is_a_difference_to(tree, tmp_path):
    """With keep 1 the average differs from that of the clients' own tensors by rounding alone."""
    tree = tree | {"payload": {"codec": "topk-int8", "keep": 1.0}}
    folder = comigs.run(tree, out=tmp_path).folder
    for number in (2, 3):
        shared = read_state(folder / "server", number)[0]["shared"]
        own = [read_state(folder / f"clients/{i}", number)[0]["tensors"] for i in range(3)]
        for name, tensor in shared.items():
            mean = sum(tensors[name] for tensors in own) / 3
            torch.testing.assert_close(tensor, mean, rtol=0, atol=1e-4)


def test_topk_needs_a_method_that_averages(tree, tmp_path):
    tree = tree | {"method": "flora", "experts": {"specialists": 1, "rank": 2}}
    with pytest.raises(
        BadInput, match=r"payload.codec is 'topk-int8', but method 'flora' does not"
    ):
        comigs.run(tree | {"payload": {"codec": "topk-int8"}}, out=tmp_path)


def test_default_sections_leave_the_hash_alone():
    given = {"payload": {"codec": "none"}, "privacy": {"mechanism": "none"}, "faults": {}}
    assert config_hash(load_config(given)) == config_hash(load_config({}))
    other = load_config({"payload": {"codec": "int8"}})
    assert config_hash(other) != config_hash(load_config({}))
