"""payload.down: who has the rest gets what has changed, and both sides have the same bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.config.load import load_config
from comigs.costs.traffic import traffic
from comigs.errors import BadInput, Refusal
from comigs.federation.run import resolve
from comigs.local.known import KNOWN, changed
from comigs.messages.codecs import wire_bytes
from comigs.mixture.adapters import start_tensor
from comigs.store.state import read_state, write_state
from comigs_server.delivery import parcels, take_in, takes_changes
from comigs_server.fleet.exchange import Client
from comigs_server.resume import Progress
from tests.helpers import assert_same_numbers, client_of, events, stopped_and_resumed

pytest_plugins = ("tests.fixtures",)

PACKED = ("bf16", "int8")


def run_of(down, **settings):
    return resolve(load_config({"payload": {"down": down}, **settings}))


@pytest.fixture
def shapes():
    return {"l.lora_A.generalist_0.weight": (2, 6), "l.lora_B.generalist_0.weight": (4, 2)}


@pytest.mark.parametrize("down", PACKED)
def test_small_steps_of_the_mean_arrive_in_time(down, shapes):
    """Twenty steps of 1e-4 on weights of up to 0.4 are less than a weight's rounding."""
    run, progress = run_of(down), Progress()
    start = {name: start_tensor(name, shape, run.config.seed) for name, shape in shapes.items()}
    held = start
    for _ in range(20):
        take_in(run, progress, {name: tensor + 1e-4 for name, tensor in held.items()})
        held = progress.shared
    for name, tensor in held.items():
        assert float((tensor - start[name]).mean()) == pytest.approx(20e-4, rel=0.01)


@given(st.sampled_from(PACKED), st.integers(0, 99), st.sampled_from([1e-6, 1.0, 1e4]))
def test_nothing_is_lost_but_what_waits(down, seed, scale):
    """Whatever the means are: what clients know, and what is unsent, make up the mean."""
    run, progress, rng = run_of(down), Progress(), torch.Generator().manual_seed(seed)
    name, owed = "l.lora_B.generalist_0.weight", torch.zeros(4, 2)
    for _ in range(4):
        mean = torch.randn(4, 2, generator=rng) * scale
        take_in(run, progress, {name: mean})
        owed = mean + owed - progress.shared[name]
        torch.testing.assert_close(progress.unsent[name], owed, rtol=1e-4, atol=1e-5 * scale)


def test_a_round_that_made_nothing_changes_nothing(shapes):
    run, progress = run_of("int8"), Progress()
    take_in(run, progress, {name: torch.ones(shape) for name, shape in shapes.items()})
    before, unsent = progress.shared, progress.unsent
    take_in(run, progress, {})
    assert progress.shared == before and progress.unsent == unsent and progress.change == {}


def test_only_who_was_sent_the_last_tensors_gets_the_change(shapes):
    run, progress = run_of("int8"), Progress(current={0, 2}, resting={2})
    take_in(run, progress, {name: torch.ones(shape) for name, shape in shapes.items()})
    a, b, c = (Client(i, i, f"c{i}", frozenset(), shapes) for i in range(3))
    assert [takes_changes(run, progress, one) for one in (a, b, c)] == [True, False, False]
    parcel_of = parcels(run, progress)
    assert {str(t.dtype) for t in parcel_of(a).values()} == {"torch.int8", "torch.float32"}
    assert parcel_of(b) == progress.shared
    assert parcel_of(c) == {}


@pytest.mark.parametrize("down", PACKED)
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "comigs"},
        {"method": "fedavg", "server": {"strategy": "FedAdam"}},
        {"method": "comigs-2g", "participation": 0.6, "rounds": 4},
        {"method": "ffa-lora", "engine": {"fuse": 3}, "payload": {"codec": "int8"}},
    ],
    ids=lambda settings: settings["method"],
)
def test_both_sides_agree_and_the_bytes_are_those_of_the_plan(down, settings, tree, tmp_path):
    tree = tree | settings | {"experts": {"specialists": 1, "rank": 2}}
    tree["payload"] = {"down": down, **settings.get("payload", {})}
    result = comigs.run(tree, out=tmp_path)
    for row, line in zip(result.table, traffic(resolve(result.config)).clients, strict=True):
        assert (row["bytes_up"], row["bytes_down"]) == (sum(line.up), sum(line.down))
    last = result.config.rounds
    before = read_state(tmp_path / "server", last - 1)[0]["shared"]
    there = [e["client"] for e in events(tmp_path, "client") if e["round"] == last]
    assert there
    for client in there:
        known = read_state(tmp_path / "clients" / str(client), last)[0][KNOWN]
        assert known.keys() == before.keys()
        assert all(torch.equal(known[name], before[name]) for name in known)


def test_a_round_s_change_is_a_quarter_of_the_tensors(tree, tmp_path):
    result = comigs.run(tree | {"payload": {"down": "int8"}}, out=tmp_path)
    down = {e["bytes_down"] for e in events(tmp_path, "client") if e["round"] > 1}
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in read_state(tmp_path / "server", 3)[0]["shared"].items()
    }
    assert down == {wire_bytes(result.config.payload.downward, shapes)}
    whole = 4 * sum(torch.Size(shape).numel() for shape in shapes.values())
    assert max(down) < 0.5 * whole  # of rank 2: scales count


@pytest.mark.slow
@pytest.mark.parametrize("down", PACKED)
def test_it_changes_little(down, tree, finished, tmp_path):
    before = {row["name"]: row["after"] for row in events(finished, "final")}
    for row in comigs.run(tree | {"payload": {"down": down}}, out=tmp_path).table:
        assert row["after"] == pytest.approx(before[row["name"]], rel=1e-3)


def test_a_resumed_run_is_bit_identical(tree, tmp_path):
    tree = tree | {"payload": {"down": "int8"}, "participation": 0.6, "rounds": 4}
    whole = comigs.run(tree, out=tmp_path / "whole").folder
    assert_same_numbers(stopped_and_resumed(tree, tmp_path / "run", after=3), whole)


@pytest.mark.parametrize(
    ("method", "why"),
    [(method, "sends the same tensors to all") for method in ("pcl", "flora", "fedalt")],
)
def test_it_needs_one_difference_for_all(method, why, tree, tmp_path):
    tree = tree | {"method": method, "experts": {"specialists": 1, "rank": 2}}
    with pytest.raises(BadInput, match=rf"payload.down is 'bf16', which needs a method that {why}"):
        comigs.run(tree | {"payload": {"down": "bf16"}}, out=tmp_path)


def test_a_difference_that_is_none_is_refused(tmp_path):
    config = load_config({"payload": {"down": "int8"}, "experts": {"rank": 2}})
    client = client_of(config)
    write_state(tmp_path, 1, {"tensors": {}, KNOWN: {}}, {})
    for arrays in ({"x": torch.zeros(2)}, {"x|scale": torch.zeros(2)}):
        with pytest.raises(Refusal, match="not a difference of this client's shared tensors"):
            changed(client, arrays, tmp_path, 1)
    whole = client_of(load_config({"experts": {"rank": 2}}))
    with pytest.raises(Refusal, match=r"payload\.down is none"):
        changed(whole, {}, tmp_path, 1)
