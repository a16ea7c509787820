"""Buffered rounds behind a SuperLink: devices arrive in their own time.

The SuperLink is this process; its nodes answer with the ClientApp as devices do, and a test says
in which order.
"""

import shutil
from types import SimpleNamespace

import pytest

import comigs
from comigs.config.load import load_config
from comigs.costs.ahead import Ahead
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs_server.checks.run import check_without_data
from comigs_server.fleet import post
from tests.helpers import events, numbers
from tests.server.devices import DIES, HANGS, InOrder, arrived, run_behind
from tests.server.test_buffered import buffered

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time goes on by sleeping only."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(post, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0]))


@pytest.fixture(scope="module")
def data(federation, tiny_model, tmp_path_factory):
    folder = shutil.copytree(federation, tmp_path_factory.mktemp("data") / "texts")
    (folder / "device.yaml").write_text(f"models: [{tiny_model}]\n")
    return folder


@pytest.fixture
def link_run(tree, data, tmp_path):
    """A function that runs, or goes on with, a federation over a SuperLink, in `tmp_path`."""

    def go(link, stop_after=None, **more):
        server = {"mode": "buffered", "buffer": 1} | more.pop("server", {})
        settings = tree | {"data": tree["data"] | {"name": str(data)}, "engine": "flower"}
        settings |= {"flower": {"run": "a"}, "clients": 3, "server": server} | more
        folder = tmp_path / "run"

        def watch(event):
            link.told.append(event)
            if event.kind == "round" and event.round == stop_after:
                raise KeyboardInterrupt

        run_behind(link, settings, folder, watch)
        return folder

    return go


def assert_equal(folder, devices, other):
    """All tensors of the server and of the devices, and what the test found, are the same.

    What is under way is kept in another form: as what it began from, not as what it changed.
    """
    mine, finals, _ = numbers(folder)
    for i in range(3):
        kept = devices / str(i) / "a"
        mine |= {str(p.relative_to(kept)): p.read_bytes() for p in kept.rglob("*.safetensors")}
    theirs, others, _ = numbers(other)
    under_way = ("past.safetensors", "flying.safetensors")
    mine, theirs = (
        {name: data for name, data in side.items() if not name.endswith(under_way)}
        for side in (mine, theirs)
    )
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert finals == others


@pytest.fixture(scope="module")
def simulated(tree, tmp_path_factory):
    """The same in simulated time: six steps, each after one arrival."""
    return comigs.run(buffered(tree, rounds=6), out=tmp_path_factory.mktemp("six")).folder


def test_in_the_order_of_simulated_time_it_is_that_run_bit_for_bit(link_run, simulated, tmp_path):
    order = [client for _, client, _ in arrived(simulated)]
    link = InOrder(tmp_path / "devices", order)
    folder = link_run(link, rounds=6)
    assert arrived(folder) == arrived(simulated)
    assert any(since < number for number, _, since in arrived(folder))
    assert_equal(folder, tmp_path / "devices", simulated)


def test_stopped_in_mid_flight_it_asks_again_and_makes_the_same_bits(link_run, simulated, tmp_path):
    order = [client for _, client, _ in arrived(simulated)]
    devices = tmp_path / "devices"
    with pytest.raises(KeyboardInterrupt):
        link_run(InOrder(devices, order), stop_after=3, rounds=6)
    before = arrived(tmp_path / "run")[:2]  # what is saved
    link = InOrder(devices, order[2:])
    folder = link_run(link, rounds=6)
    again = [one for one in link.asked if one[1] <= 2]
    assert {client for client, *_ in again} == {0, 1, 2} - {before[-1][1]}
    [told] = [event for event in link.told if event.kind == "asked again"]
    assert len(told.clients) == len(again) == 2
    assert arrived(folder) == arrived(simulated)
    assert_equal(folder, devices, simulated)
    counted = {e["client"]: 0 for e in events(folder, "client")}
    for event in events(folder, "client"):
        counted[event["client"]] += event["bytes_up"]
    assert counted == {e["client"]: e["bytes_up"] for e in events(folder, "final")}


def test_who_hangs_or_fails_costs_its_own_update_only(link_run, tmp_path):
    link = InOrder(tmp_path / "devices", faults={(0, 1): HANGS, (1, 2): DIES})
    folder = link_run(link, rounds=4, local_steps=1, server={"round_timeout": 30.0})
    # 0 hangs all the while; 1 fails in its second turn, and 2 is there in its place
    assert arrived(folder) == [(1, 1, 1), (2, 2, 1), (3, 2, 3), (4, 1, 4)]
    failed = [(e["round"], e["client"], e["reason"]) for e in events(folder, "failure")]
    assert failed == [(3, 1, "x"), (4, 0, "no answer within 30 s")]
    assert [e["failed"] for e in events(folder, "round")] == [0, 0, 1, 1]
    assert [e["staleness"] for e in events(folder, "round")] == [0, 1, 0, 0]
    last = [e["client"] for e in events(folder, "client") if e["round"] == 4]
    assert last == [1, 2], "at the end those at work are waited for, too"
    assert [e["client"] for e in events(folder, "final")] == [0, 1, 2]


def test_two_arrivals_make_a_step_and_are_told_as_they_came(link_run, tmp_path):
    link = InOrder(tmp_path / "devices", [2, 0, 1, 2, 0])
    folder = link_run(link, rounds=2, local_steps=1, server={"buffer": 2})
    assert arrived(folder) == [(1, 2, 1), (1, 0, 1), (2, 1, 1), (2, 2, 2)]
    assert [e["clients"] for e in events(folder, "round")] == [2, 3]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"devices": {"profiles": ["laptop"]}}, "devices.profiles must be null"),
        ({"stop": {"patience": 2}}, "stop.patience is 2, but"),
        ({"clients": 3, "server": {"buffer": 4}}, "only 3 clients are at work"),
    ],
)
def test_what_needs_simulated_time_is_refused(tree, monkeypatch, more, words):
    monkeypatch.setattr("comigs_server.checks.run.connection", lambda wanted: "mine")
    server = {"mode": "buffered", "buffer": 2} | more.pop("server", {})
    settings = tree | {"engine": "flower", "experts": {"rank": 2}, "server": server}
    check_without_data(resolve(load_config(settings)))
    with pytest.raises(BadInput, match=words):
        check_without_data(resolve(load_config(settings | more)))


def test_before_a_run_all_devices_are_taken_for_equally_fast(tree):
    settings = tree | {"engine": "flower", "clients": 3}
    run = resolve(load_config(settings | {"server": {"mode": "buffered", "buffer": 1}}))
    ahead = Ahead(run, 3, lambda client, number: 1)
    told = [ahead.round(number, [1, 1, 1]) for number in range(1, 5)]
    assert told == [({0, 1, 2}, {0}), ({0}, {1}), ({1}, {2}), ({2}, {0})]
