"""Buffered rounds: a step after K arrivals, at everybody's own speed."""

import math

import pytest
import torch

import comigs
from comigs.app.run import plan
from comigs.config.load import config_hash, load_config
from comigs.errors import BadInput
from comigs.federation.closing import Closing
from comigs.federation.run import resolve
from comigs.local.round import start_of
from comigs.store.state import read_state
from comigs_server.timing.clock import Loss
from comigs_server.timing.flights import Flight, close_buffered, overtaken, still_flying
from tests.helpers import assert_same_numbers, events, numbers, stopped_and_resumed

pytest_plugins = ("tests.fixtures",)
PHONE = {"like": "phone-low", "dropout": 0.0, "flops": {"float32": 1e8, "bfloat16": 1e8}}
SPEEDS = {
    "slow": PHONE,
    "middling": PHONE | {"flops": {"float32": 4e8, "bfloat16": 4e8}},
    "fast": PHONE | {"flops": {"float32": 3e9, "bfloat16": 3e9}},
    "frail": PHONE | {"dropout": 0.6},
}


def buffered(tree, profiles=("slow", "middling", "fast"), buffer=1, **more):
    devices = {"define": SPEEDS, "profiles": list(profiles)}
    server = {"mode": "buffered", "buffer": buffer}
    return tree | {"devices": devices, "server": server} | more


@pytest.fixture(scope="module")
def run_of_six(tree, tmp_path_factory):
    """Six steps, each after one arrival, on devices of 1, 4 and 30 times a speed."""
    return comigs.run(buffered(tree, rounds=6), out=tmp_path_factory.mktemp("six")).folder


def test_a_round_closes_at_the_kth_arrival_of_whatever_round():
    flying = {0: Flight({}, 1.0, 5.0, 1), 1: Flight({}, 1.0, 1.0, 1, lost=True)}
    closing = close_buffered(flying, {2: 3.0, 3: 9.0}, {}, 2)
    assert (closing.seconds, closing.in_time, closing.late) == (5.0, [0, 2], [3])


def test_with_nobody_at_work_any_more_it_closes_with_fewer():
    lost = {1: Loss("phone", 7.0, 1.0, "lost")}
    closing = close_buffered({}, {0: 3.0}, lost, 2)
    assert (closing.seconds, closing.in_time) == (7.0, [0])


def test_who_is_at_work_stays_so_until_its_time():
    flying = {
        0: Flight({}, 1.0, 5.0, 1),
        1: Flight({}, 1.0, 1.0, 1, lost=True),
        2: Flight({}, 1.0, 8.0, 1, lost=True),
        3: Flight({}, 2.0, 9.0, 2),
    }
    left = still_flying(flying, Closing(5.0, [0], [3]))
    assert left == {2: Flight({}, 1.0, 3.0, 1, lost=True), 3: Flight({}, 2.0, 4.0, 2)}


def test_an_old_update_is_added_to_what_the_server_has_now_by_its_age():
    flying = {4: Flight({"a": torch.tensor([2.0, -4.0])}, 1.0, 0.5, since=2)}
    closing = Closing(0.5, [4], [])
    now = {"a": torch.tensor([10.0, 10.0])}
    update = overtaken(flying, 5, closing, lambda client, tensors: now)[4]
    # three steps later: 1 / sqrt(1 + 3) = 1/2
    assert update.tensors["a"].tolist() == [11.0, 8.0]


@pytest.mark.slow
def test_waiting_for_everybody_it_is_the_synchronous_run_bit_for_bit(tree, finished, tmp_path):
    folder = comigs.run(buffered(tree, buffer=3), out=tmp_path).folder
    assert_same_numbers(folder, finished)
    assert [e["staleness"] for e in events(folder, "round")] == [0, 0, 0]


def test_arrivals_are_those_of_an_event_queue(run_of_six):
    """Played again from what each client took, by the clock alone."""
    took = {(e["round"], e["client"]): e["sim_seconds"] for e in events(run_of_six, "client")}
    clock, working, told = 0.0, {}, []
    for number in range(1, 7):
        for client in {0, 1, 2} - set(working):
            working[client] = clock + took[number, client], number
        done, client = min((at, client) for client, (at, _) in working.items())
        told.append((number, client, working.pop(client)[1], pytest.approx(done)))
        clock = done
    clocks = [e["sim_clock"] for e in events(run_of_six, "round")]
    arrived = [(e["round"], e["client"], e["since"]) for e in events(run_of_six, "arrived")]
    assert [(*one, at) for one, at in zip(arrived, clocks, strict=True)] == told
    assert len(took) == 3 + 5  # all begin at once, then one in the place of each that arrived
    often = [[client for _, client, _ in arrived].count(i) for i in range(3)]
    assert often == sorted(often) and often[2] > often[0], "the faster, the more often"
    assert any(since < number for number, _, since in arrived)


def test_the_servers_tensors_are_the_steps_of_fedbuff(tree, tmp_path):
    """w += 1 / sqrt(1 + tau) (trained - fetched), one arrival a step, worked out from the files."""
    speeds = ("middling", "middling", "fast")
    folder = comigs.run(buffered(tree, speeds), out=tmp_path).folder
    versions = [start_of(resolve(load_config(buffered(tree, speeds))))]
    arrived = events(folder, "arrived")
    assert any(e["round"] > e["since"] for e in arrived)
    for event in arrived:
        trained = read_state(folder / "clients" / str(event["client"]), event["since"])[0]
        fetched, w = versions[event["since"] - 1], versions[-1]
        age = 1 / math.sqrt(1 + event["round"] - event["since"])
        shared = read_state(folder / "server", event["round"])[0]["shared"]
        for name, tensor in shared.items():
            step = age * (trained["tensors"][name] - fetched[name])
            torch.testing.assert_close(tensor, w[name] + step, rtol=1e-5, atol=1e-7)
        versions.append(shared)
    assert len(versions) == 4


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 5])
def test_stopped_after_any_step_it_goes_on_bit_for_bit(tree, run_of_six, tmp_path, after):
    folder = stopped_and_resumed(buffered(tree, rounds=6), tmp_path / "run", after)
    assert_same_numbers(folder, run_of_six)
    told = ("arrived", "round")
    drop = ("seconds", "compute_seconds", "tokens_per_second")
    for kind in told:
        one, two = (
            [{k: v for k, v in e.items() if k not in drop} for e in events(f, kind)]
            for f in (folder, run_of_six)
        )
        assert one == two


@pytest.mark.slow
def test_worker_processes_make_the_same_bits(tree, run_of_six, tmp_path):
    engine = {"name": "ray", "workers": 2}
    folder = comigs.run(buffered(tree, rounds=6, engine=engine), out=tmp_path).folder
    assert_same_numbers(folder, run_of_six)


def test_lost_devices_free_their_places(tree, tmp_path):
    frail = buffered(tree, ("frail", "frail", "fast"), rounds=6, local_steps=1)
    folder = comigs.run(frail, out=tmp_path).folder
    dropped = [(e["round"], e["client"]) for e in events(folder, "dropped")]
    assert dropped
    assert [e["round"] for e in events(folder, "round")] == list(range(1, 7))
    assert len(events(folder, "final")) == 3


def test_the_plan_knows_who_begins_how_often_and_what_travels(tree, run_of_six):
    _, told = plan(buffered(tree, rounds=6))
    rows = {row["client"]: row for row in events(run_of_six, "final")}
    began = [e["client"] for e in events(run_of_six, "client")]
    for i, client in enumerate(told.clients):
        assert client.rounds == began.count(i)
        assert client.up_run == rows[i]["bytes_up"]
        assert client.down_run == rows[i]["bytes_down"]


def test_the_validation_of_a_round_is_of_everybodys_newest_value(run_of_six):
    newest = {}
    for done in events(run_of_six, "round"):
        mine = [e for e in events(run_of_six, "client") if e["round"] == done["round"]]
        newest |= {e["client"]: e["valid_ppl"] for e in mine}
        assert done["valid_ppl"] == pytest.approx(sum(newest.values()) / len(newest))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"method": "pcl"}, "a method that averages; method 'pcl'"),
        ({"method": "flora"}, "a method that averages; method 'flora'"),
        ({"method": "local"}, "a method that shares something; method 'local'"),
        ({"method": "centralized"}, "a method that shares something; method 'centralized'"),
        ({"strategy": "FedMedian"}, "a strategy of means; server.strategy is 'FedMedian'"),
        ({"privacy": {"secure": "secagg"}}, "privacy.secure none"),
        ({"privacy": {"mechanism": "client"}}, "privacy.mechanism none"),
        ({"buffer": 4}, "server.buffer is 4; only 3 clients are at work"),
        ({"buffer": None}, "server.buffer is null"),
        ({"late": "keep"}, "server.late is 'keep', which needs server.mode sync"),
        ({"deadline": 5.0}, "server.deadline is 5.0, which needs server.mode sync"),
        ({"min_clients": 2}, "server.min_clients is 2"),
        ({"mode": "sync"}, "server.buffer is 1, which needs server.mode buffered"),
        ({"devices": {}}, "server.mode is 'buffered', which needs devices.profiles"),
        ({"engine": "flower"}, "devices.profiles must be null, not that of simulated ones"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tree, tmp_path, more, words):
    made = buffered(tree, experts={"specialists": 1, "rank": 2})
    others = ("method", "privacy", "devices", "engine")
    of_server = {k: v for k, v in more.items() if k not in others}
    rest = {k: v for k, v in more.items() if k not in of_server}
    if "engine" in rest:
        rest |= {"clients": 3}
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        comigs.run(made | {"server": made["server"] | of_server} | rest, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_names_of_other_runs_are_as_they_were(tree):
    spelt = tree | {"server": {"mode": "sync", "buffer": None}}
    assert config_hash(load_config(spelt)) == config_hash(load_config(tree))
    assert config_hash(load_config(buffered(tree))) != config_hash(load_config(tree))


def test_a_checkpoint_of_other_runs_has_nothing_more_in_it(finished):
    tensors, meta = read_state(finished / "server", 3)
    assert not {"flying", "heard"} & (set(tensors) | set(meta))
    assert numbers(finished)[0]
