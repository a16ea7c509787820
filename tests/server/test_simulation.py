"""Runs on simulated devices: who is late, who is lost, and what that does to the result."""

import pytest
import torch

import comigs
from comigs.app.run import plan
from comigs.errors import BadInput
from comigs.store.state import read_state
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)


def on(profiles, tree, server=None, **define):
    devices = {"profiles": profiles, "define": define}
    return tree | {"devices": devices, "server": server or {}}


STEADY = {"like": "laptop", "dropout": 0.0}
SLOW = STEADY | {"latency": 50.0}
SLOWER = STEADY | {"latency": 80.0}
TIMES = {"quick": STEADY | {"latency": 20.0}, "slow": SLOWER}
FLAKY = {"like": "laptop", "dropout": 0.999}


def shared(folder, number=3):
    return read_state(folder / "server", number)[0]["shared"]


def of_client(folder, client, number):
    return read_state(folder / f"clients/{client}", number)[0]["tensors"]


@pytest.mark.slow
def test_devices_alone_change_no_number(tree, finished, tmp_path):
    folder = comigs.run(
        on(["steady", "slow", "steady"], tree, steady=STEADY, slow=SLOW), out=tmp_path
    ).folder
    assert_same_numbers(folder, finished)
    rounds = events(folder, "round")
    assert [e["sim_clock"] for e in rounds] == pytest.approx(
        [sum(e["sim_seconds"] for e in rounds[: i + 1]) for i in range(3)]
    )
    for event in rounds:
        mine = [e for e in events(folder, "client") if e["round"] == event["round"]]
        assert event["sim_seconds"] == max(e["sim_seconds"] for e in mine)
        assert event["sim_joules"] == pytest.approx(sum(e["sim_joules"] for e in mine))
        assert {e["device"] for e in mine} == {"steady", "slow"}
        for e in mine:
            assert e["sim_seconds"] == e["sim_down"] + e["sim_compute"] + e["sim_up"]


def test_a_late_update_is_discarded(tree, tmp_path):
    tree = on(["steady", "slow", "steady"], tree, {"deadline": 60.0}, slow=SLOW, steady=STEADY)
    folder = comigs.run(tree, out=tmp_path).folder
    assert [(e["round"], e["client"]) for e in events(folder, "late")] == [
        (r, 1) for r in (1, 2, 3)
    ]
    assert {e["sim_seconds"] for e in events(folder, "round")} == {60.0}
    name, mean = next(iter(shared(folder).items()))
    ends = [of_client(folder, client, 3)[name] for client in (0, 2)]
    torch.testing.assert_close(mean, (ends[0] + ends[1]) / 2)


def test_a_late_update_is_kept_for_the_round_in_which_it_arrives(tree, tmp_path):
    """Two of three clients train in a round of 50 s or more; client 1 takes twice as long."""
    server, calm = {"deadline": 60.0, "late": "keep"}, STEADY | {"latency": 25.0}
    tree = on(["calm", "slow", "calm"], tree, server, slow=SLOW, calm=calm)
    tree |= {"participation": 0.67, "seed": 1, "rounds": 4}
    folder = comigs.run(tree, out=tmp_path).folder
    trained = {
        r: {e["client"] for e in events(folder, "client") if e["round"] == r} for r in range(1, 5)
    }
    first = min(r for r in trained if 1 in trained[r])
    free = next(r for r in range(first + 1, 5) if 1 not in trained[r])
    sent = max(r for r in trained if r < free and 1 in trained[r])
    assert sent == free - 1, "choose a seed with client 1 in one round and out of the next"
    name, mean = next(iter(shared(folder, free).items()))
    ends = [of_client(folder, client, free)[name] for client in trained[free]]
    ends.append(of_client(folder, 1, sent)[name])
    torch.testing.assert_close(mean, sum(ends) / 3)


def test_who_is_late_is_not_asked_again_before_its_update_is_there(tree, tmp_path):
    """A device needs 160 s, the rounds take 60, 40, 40 and 40: there in 4, asked again in 5."""
    tree = on(["quick", "slow", "quick"], tree, {"deadline": 60.0, "late": "keep"}, **TIMES)
    tree |= {"rounds": 5, "local_steps": 1}
    folder = comigs.run(tree, out=tmp_path / "run").folder
    rounds, trained = events(folder, "round"), events(folder, "client")
    assert [round(e["sim_clock"], -1) for e in rounds] == [60, 100, 140, 180, 240]
    assert [e["round"] for e in trained if e["client"] == 1] == [1, 5]
    assert [(e["clients"], e["late"]) for e in rounds] == [(3, 1), (2, 0), (2, 0), (2, 0), (3, 1)]
    name, mean = next(iter(shared(folder, 4).items()))
    ends = [of_client(folder, client, number)[name] for client, number in ((0, 4), (2, 4), (1, 1))]
    torch.testing.assert_close(mean, sum(ends) / 3)
    _, told = plan(tree)
    assert [client.rounds for client in told.clients] == [5, 2, 5]


def test_where_all_are_late_time_goes_on(tree, tmp_path):
    """All need a little more than 100 s, no two of them equally long."""
    tree = on(["slow"] * 3, tree, {"deadline": 60.0, "late": "keep"}, slow=SLOW)
    tree |= {"rounds": 3, "local_steps": 1}
    rounds = events(comigs.run(tree, out=tmp_path).folder, "round")
    told = [(e["clients"], e["late"], e["abandoned"]) for e in rounds]
    assert told == [(3, 3, True), (0, 0, False), (1, 1, False)]
    assert [round(e["sim_clock"], -1) for e in rounds] == [60, 100, 160]


def test_a_run_with_late_updates_resumes_bit_for_bit(tree, tmp_path, monkeypatch):
    import comigs_server.loop

    tree = on(
        ["steady", "slower", "steady"],
        tree,
        {"deadline": 60.0, "late": "keep"},
        slower=SLOWER,
        steady=STEADY,
    ) | {"participation": 0.67, "rounds": 5}
    whole = comigs.run(tree, out=tmp_path / "whole").folder
    write = comigs_server.loop.write_state

    def stops(root, number, *rest):
        write(root, number, *rest)
        if number == stop:
            raise KeyboardInterrupt

    for stop in (1, 3):
        with monkeypatch.context() as patch:
            patch.setattr(comigs_server.loop, "write_state", stops)
            with pytest.raises(KeyboardInterrupt):
                comigs.run(tree, out=tmp_path / str(stop))
        folder = comigs.app.run.resume(tmp_path / str(stop)).folder
        assert_same_numbers(folder, whole)
        clocks = [[e["sim_clock"] for e in events(f, "round")] for f in (folder, whole)]
        assert clocks[0] == clocks[1]


def test_a_lost_device_does_not_train_and_the_round_goes_on(tree, tmp_path):
    tree = on(["steady", "flaky", "steady"], tree, flaky=FLAKY, steady=STEADY)
    folder = comigs.run(tree, out=tmp_path).folder
    assert {e["client"] for e in events(folder, "client")} == {0, 2}
    lost = events(folder, "dropped")
    assert [(e["round"], e["client"]) for e in lost] == [(r, 1) for r in (1, 2, 3)]
    assert "flaky lost after" in lost[0]["reason"]
    assert not (folder / "clients/1/round_00001").exists()


def test_a_round_with_too_few_updates_in_time_is_abandoned(tree, tmp_path):
    tree = on(
        ["steady", "slow", "slow"],
        tree,
        {"deadline": 60.0, "min_clients": 2},
        slow=SLOW,
        steady=STEADY,
    )
    folder = comigs.run(tree, out=tmp_path).folder
    assert [e["abandoned"] for e in events(folder, "round")] == [True] * 3
    assert shared(folder) == {}


@pytest.mark.parametrize(
    "setting", ["server.deadline=5", "server.over_selection=0.5", "server.late=keep"]
)
def test_settings_of_simulated_time_need_devices(tree, tmp_path, setting):
    key = setting.partition("=")[0]
    with pytest.raises(BadInput, match=rf"{key} .*needs devices\.profiles"):
        comigs.run(tree, [setting], out=tmp_path)
