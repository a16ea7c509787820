"""Runs on devices as they are: they vary, share links, and come and go in simulated time."""

import math
from statistics import mean, median, pstdev

import pytest

import comigs
from comigs.app.run import plan
from comigs.config.load import config_hash, load_config
from comigs.errors import BadInput
from comigs.federation.conditions import devices_in
from comigs.federation.run import resolve
from comigs.traces.windows import Traces, write_traces
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.usefixtures("quick_plans")
PHONE = {"like": "phone-low", "dropout": 0.0, "flops": {"float32": 1e8, "bfloat16": 1e8}}
VARIED = PHONE | {"speed_jitter": 0.3, "network_jitter": 0.5, "site": "home"}
HOME = {"home": {"up": 1000.0, "down": 2000.0}}
# A round with a download takes about 12.5 s, 4.1 of which are the download.
COMING = {"a": [(0, 30), (400, 1000)], "b": [(0, 40), (405, 409)], "c": [(45, 1000)]}


def on(tree, path, **more):
    write_traces(Traces(1000, COMING), path)
    define = {"phone": VARIED, "steady": PHONE}
    devices = {"profiles": ["phone", "phone", "steady"], "define": define, "sites": HOME}
    return tree | {"devices": devices | {"traces": str(path)}} | more


def run_of(profile, count, **devices):
    devices = {"define": {"mine": profile}, "profiles": ["mine"] * count} | devices
    return resolve(load_config({"devices": devices}))


@pytest.fixture(scope="module")
def varied(tree, tmp_path_factory):
    """The configuration, its run, and the same cut off in round 2 and resumed."""
    place = tmp_path_factory.mktemp("varied")
    tree = on(tree, place / "traces.json", rounds=5, server={"min_clients": 2})
    with pytest.MonkeyPatch.context() as patch:  # as `plain_reports` does for a test
        patch.setattr("comigs.report.page.pictures_of", lambda run: [])
        patch.setattr("comigs.report.page.draw_dumbbell", lambda *_: None)
        return tree, *run_and_resumed(tree, place)


def test_a_round_waits_until_enough_are_there_and_who_leaves_is_lost(varied):
    """Once a and b are gone, nobody but c is there until a is again; then b comes for 4 s."""
    _, whole, _ = varied
    rounds = events(whole, "round")
    waits = [e.get("sim_wait", 0.0) for e in rounds]
    assert [bool(wait) for wait in waits] == [False, False, False, True, False]
    assert rounds[2]["sim_clock"] + waits[3] == 400
    trained = [[e["client"] for e in events(whole, "client") if e["round"] == r] for r in (3, 4, 5)]
    assert list(map(sorted, trained)) == [[0, 1], [0, 2], [0, 2]]
    [lost] = events(whole, "dropped")
    left = 409 - rounds[3]["sim_clock"]
    assert (lost["round"], lost["client"]) == (5, 1)
    assert lost["reason"] == f"phone lost after {left:.0f} simulated seconds"
    slowest = max(e["sim_seconds"] for e in events(whole, "client") if e["round"] == 4)
    assert rounds[3]["sim_seconds"] == waits[3] + slowest


def test_each_round_has_its_speed_and_its_part_of_the_link(varied):
    tree, whole, _ = varied
    run, work = resolve(load_config(tree)), set()
    for event in events(whole, "client"):
        at_home = {2: (0, 1), 3: (0, 1), 4: (0,)}.get(event["round"])
        if event["client"] != 0 or not at_home:
            continue
        device = devices_in(run, event["round"], at_home)[0]
        work.add(round(event["sim_compute"] * device.flops["float32"]))
        assert event["sim_down"] == pytest.approx(
            0.014 + event["bytes_down"] / (2000 / len(at_home)) if event["bytes_down"] else 0.014
        )
        assert event["sim_up"] == pytest.approx(0.014 + event["bytes_up"] / (1000 / len(at_home)))
    assert len(work) == 1  # FLOPs of a round are always the same


def test_a_resumed_run_and_the_plan_have_the_same_clock(varied):
    tree, whole, resumed = varied
    assert_same_numbers(resumed, whole)
    clocks = [[e["sim_clock"] for e in events(f, "round")] for f in (whole, resumed)]
    assert clocks[0] == clocks[1]
    _, planned = plan(tree)
    assert planned.sim_seconds == pytest.approx(clocks[0][-1], rel=1e-12)
    told = [sum(e["client"] == i for e in events(whole, "client")) for i in range(3)]
    assert [client.rounds for client in planned.clients] == told


def test_overlapping_rounds_have_the_clock_of_their_plan(tree, tmp_path):
    tree = on(tree, tmp_path / "traces.json", rounds=6, server={"mode": "buffered", "buffer": 1})
    rounds = events(comigs.run(tree, out=tmp_path / "run").folder, "round")
    assert plan(tree)[1].sim_seconds == pytest.approx(rounds[-1]["sim_clock"], rel=1e-12)
    assert any(e["staleness"] for e in rounds)


def test_other_traces_do_not_go_on_with_a_run(varied):
    _, _, resumed = varied
    path = resumed.parent / "traces.json"
    write_traces(Traces(1000, COMING | {"a": [(0, 31)]}), path)
    with pytest.raises(BadInput, match=r"the traces in .* differs in traces\.json"):
        comigs.app.run.resume(resumed)
    path.unlink()
    with pytest.raises(BadInput, match=r"devices\.traces: .* cannot be read"):
        comigs.app.run.resume(resumed)


def test_jitter_is_log_normal_around_the_profile():
    run = run_of(PHONE | {"speed_jitter": 0.3, "network_jitter": 0.5}, 400)
    usual, devices = run.profile(0), devices_in(run, 1, range(400))
    speeds = [math.log(d.flops["bfloat16"] / usual.flops["bfloat16"]) for d in devices.values()]
    nets = [math.log(d.up / usual.up) for d in devices.values()]
    for drawn, sigma in ((speeds, 0.3), (nets, 0.5)):
        assert median(drawn) == pytest.approx(0, abs=sigma / 8)
        assert pstdev(drawn) == pytest.approx(sigma, rel=0.1)
    both = mean(s * n for s, n in zip(speeds, nets, strict=True))
    assert both == pytest.approx(0, abs=0.02)
    assert all(d.down / usual.down == pytest.approx(d.up / usual.up) for d in devices.values())
    assert devices_in(run, 1, [7])[7] == devices[7] != devices_in(run, 2, [7])[7]


def test_a_link_is_shared_by_those_who_take_part_and_is_never_faster_than_a_device():
    run = run_of(PHONE | {"site": "office"}, 9, sites={"office": {"up": 3e6}})
    rates = [(d.up, d.down) for n in (1, 3) for d in devices_in(run, 1, range(n)).values()]
    assert rates == [(1.4e6, 6.9e6)] + [(1e6, 6.9e6)] * 3


def test_what_is_off_changes_no_name():
    """Hashes of before these settings were there."""
    mine = {"define": {"mine": {"like": "board"}}, "profiles": ["mine"] * 4}
    assert config_hash(load_config({"devices": mine})) == "736991faaae6"
    jittery = mine | {"define": {"mine": {"like": "board", "speed_jitter": 0.1}}}
    assert config_hash(load_config({"devices": jittery})) != "736991faaae6"


@pytest.mark.parametrize(
    "devices, words",
    [
        ({"traces": "t.json"}, "devices.traces needs devices.profiles"),
        ({"define": {"a": {"like": "board", "site": "x"}}}, "is 'x', which devices.sites lacks"),
        ({"define": {"a": {"like": "board", "speed_jitter": -1}}}, "speed_jitter is -1.0"),
        ({"define": {"a": {"like": "board", "network_jitter": 9}}}, "is 9.0; .* from 0 to 3"),
        ({"sites": {"x": {"up": 0}}}, "devices.sites.x.up is 0.0"),
    ],
)
def test_mistakes(devices, words):
    with pytest.raises(BadInput, match=words):
        load_config({"devices": devices})


def test_a_file_that_holds_no_traces_is_told_by_its_setting(tree, tmp_path):
    path = tmp_path / "t.json"
    config = on(tree, path)
    for text, words in (("{}", "holds no traces"), (None, "cannot be read")):
        path.write_text(text) if text else path.unlink()
        with pytest.raises(BadInput, match=rf"^devices\.traces: .*t\.json {words}"):
            comigs.run(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_could_never_begin_is_refused(tree, tmp_path):
    never = on(tree, tmp_path / "t.json", server={"min_clients": 3})
    write_traces(Traces(9, {"a": [(0, 1)], "b": [(1, 2)], "c": [(0, 1)]}), tmp_path / "t.json")
    with pytest.raises(BadInput, match="never 3 of the 3 clients there at once"):
        comigs.run(never, out=tmp_path / "run")
