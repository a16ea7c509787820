"""comigs-adaptive: roles follow the evidence, and its ends are methods that are known."""

import math

import pytest
import torch

import comigs
from comigs.config.load import read_config
from comigs.evaluation import perplexity
from comigs.methods import comigs_adaptive
from comigs.methods.comigs_adaptive import FORGET, ROLES, rests, weigh
from comigs.mixture.adapters import is_router
from comigs.store.state import read_state
from tests.helpers import events, numbers, run_and_resumed

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def equal(tree):
    return tree | {"experts": {"specialists": 1, "rank": 2}}


CALM = torch.tensor([-1.0, 1.0] * 8, dtype=torch.float64)  # mean 0 over 16 windows


def losses(gap, noise):
    """Role 0 is better than 1 by `gap` nats a token; its pairs differ by `noise` on both sides."""
    level = torch.linspace(2, 5, 16, dtype=torch.float64)  # windows differ far more than roles
    return {1.0: level, 0.5: level + 9, 0.0: level - gap + noise * CALM}


def error(noise):
    return noise * math.sqrt(16 / 15) / 4  # of the mean of 16


def test_a_role_that_is_surely_better_is_taken_at_once():
    role, evidence = weigh(losses(gap=1.0, noise=1.0), 1.0, {})
    assert role == 0.0
    assert evidence["loss 0.0"] == 0.0 and evidence["loss 1.0"] == pytest.approx(1.0)
    assert evidence["variance 0.0"] == pytest.approx(error(1.0) ** 2)


def test_what_may_be_noise_changes_nothing():
    for gap in (1.99 * error(1.0), 0.0, -1.0):
        assert weigh(losses(gap, noise=1.0), 1.0, {})[0] == 1.0
    assert weigh(losses(2.01 * error(1.0), noise=1.0), 1.0, {})[0] == 0.0


def test_what_earlier_rounds_saw_counts_and_fades():
    gap = 1.3 * error(1.0)
    role, seen = 1.0, {}
    roles = []
    for _ in range(4):
        role, seen = weigh(losses(gap, noise=1.0), role, seen)
        roles.append(role)
    # n rounds: gap (1 + 1/2 + ...) against 2 sqrt(1 + 1/4 + ...) errors
    sure = [
        1.3 * sum(FORGET**k for k in range(n))
        > 2 * math.sqrt(sum(FORGET ** (2 * k) for k in range(n)))
        for n in range(1, 5)
    ]
    assert roles == [0.0 if any(sure[: n + 1]) else 1.0 for n in range(4)]
    assert roles[0] == 1.0 and roles[-1] == 0.0


def test_a_client_comes_back_when_sharing_is_better_again():
    role, seen = weigh(losses(gap=1.0, noise=0.1), 1.0, {})
    for _ in range(3):
        role, seen = weigh(losses(gap=-1.0, noise=0.1), role, seen)
    assert role == 1.0


def test_who_always_takes_the_mean_trains_as_in_fedavg_moe(equal, tmp_path, monkeypatch):
    monkeypatch.setattr(comigs_adaptive, "ROLES", (1.0,))
    shared = comigs.run(equal, out=tmp_path / "a", method="comigs-adaptive").folder
    assert numbers(shared) == numbers(
        comigs.run(equal, out=tmp_path / "b", method="fedavg-moe").folder
    )


def test_who_never_takes_it_is_not_touched_by_the_others(equal, tmp_path, monkeypatch):
    monkeypatch.setattr(comigs_adaptive, "ROLES", (0.0,))
    monkeypatch.setattr(comigs_adaptive, "weigh", lambda *evidence: (0.0, {}))
    alone = comigs.run(equal, out=tmp_path / "run", method="comigs-adaptive").table
    assert [row["after"] for row in alone] == [row["before"] for row in alone]


def test_the_role_at_the_end_is_the_best_on_the_whole_validation_text(equal, tmp_path, monkeypatch):
    ends = {}
    for roles in (ROLES, (0.0,), (1.0,)):  # of the last arrival; it is the only one
        monkeypatch.setattr(comigs_adaptive, "ROLES", roles)
        settings = {"rounds": 1, "method": "comigs-adaptive"}
        ends[roles] = comigs.run(equal, out=tmp_path / str(roles), **settings).table
    for free, own, mean in zip(*ends.values(), strict=True):
        assert free["valid"] <= min(own["valid"], mean["valid"])


def test_who_does_not_use_the_mean_rests_and_looks_now_and_then():
    assert rests({"role": 0.5}, 9) == (True, True)
    alone = {"role": 0.0, "alone since": 3.0}
    travels = {number: rests(alone, number) for number in range(3, 13)}
    assert [number for number, (up, _) in travels.items() if up] == [3, 4]
    assert [number for number, (_, down) in travels.items() if down] == [3, 4, 7, 11]


def test_a_resting_client_costs_no_traffic_and_leaves_the_mean(equal, tmp_path, monkeypatch):
    """Client 1 is alone from round 2 on: it sends until round 3, and is in the mean until then."""
    adaptive = equal | {"method": "comigs-adaptive", "rounds": 7}
    monkeypatch.setattr(comigs_adaptive, "weigh", lambda losses, role, before: (role, {}))
    real = comigs_adaptive.receive

    def only_one_is_alone(arrival):
        arrival.kept["role"] = float(arrival.client != 1)
        return real(arrival)

    monkeypatch.setitem(vars(comigs_adaptive.METHOD), "receive", only_one_is_alone)
    folder, resumed = run_and_resumed(adaptive, tmp_path, after=5)
    told = {(e["client"], e["round"]): e for e in events(folder, "client")}
    assert [n for n in range(1, 8) if told[1, n]["bytes_up"]] == [1, 2, 3]
    assert [n for n in range(1, 8) if told[1, n]["bytes_down"]] == [2, 3, 4, 7]
    assert all(told[0, n]["bytes_up"] for n in range(1, 8))
    assert not events(folder, "failure")
    mean = read_state(folder / "server", 7)[0]["shared"]
    own = [read_state(folder / f"clients/{i}", 7)[0]["tensors"] for i in (0, 2)]
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (own[0][name] + own[1][name]) / 2)
    assert numbers(resumed) == numbers(folder)


def test_who_comes_back_travels_at_once(equal, tmp_path, monkeypatch):
    """Client 1 is alone until round 5; it looks at the mean in round 7, and takes it."""
    adaptive = equal | {"method": "comigs-adaptive", "rounds": 9}
    monkeypatch.setattr(comigs_adaptive, "weigh", lambda losses, role, before: (role, {}))
    real = comigs_adaptive.receive

    def for_a_while(arrival):
        arrival.kept["role"] = float(arrival.client != 1 or arrival.round > 5)
        return real(arrival)

    monkeypatch.setitem(vars(comigs_adaptive.METHOD), "receive", for_a_while)
    folder = comigs.run(adaptive, out=tmp_path).folder
    told = [e for e in events(folder, "client") if e["client"] == 1]
    assert [e["round"] for e in told if e["bytes_up"]] == [1, 2, 3, 7, 8, 9]
    assert [e["round"] for e in told if e["bytes_down"]] == [2, 3, 4, 7, 8, 9]


def test_when_all_rest_the_round_is_a_round(equal, tmp_path, monkeypatch):
    monkeypatch.setattr(comigs_adaptive, "ROLES", (0.0,))
    monkeypatch.setattr(comigs_adaptive, "weigh", lambda *evidence: (0.0, {}))
    adaptive = equal | {"method": "comigs-adaptive", "rounds": 6}
    folder = comigs.run(adaptive, out=tmp_path).folder
    assert [e["bytes_up"] > 0 for e in events(folder, "round")] == [True] * 3 + [False] * 3
    states = [read_state(folder / "server", number)[0]["shared"] for number in (4, 6)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("protection", [{"mechanism": "client"}, {"secure": "secagg"}])
def test_nobody_rests_where_that_would_tell_something(protection, equal, tmp_path, monkeypatch):
    monkeypatch.setattr(comigs_adaptive, "ROLES", (0.0,))
    monkeypatch.setattr(comigs_adaptive, "weigh", lambda *evidence: (0.0, {}))
    adaptive = equal | {"method": "comigs-adaptive", "rounds": 5, "privacy": protection}
    folder = comigs.run(adaptive, out=tmp_path).folder
    assert all(e["bytes_up"] for e in events(folder, "client"))


def test_unequal_clients_share_what_both_have(tree, tmp_path):
    unequal = tree | {"experts": {"specialists": [0, 1, 3], "rank": 2}}
    result = comigs.run(unequal, out=tmp_path, method="comigs-adaptive", rounds=2)
    assert not events(tmp_path, "failure")
    mean = read_state(tmp_path / "server", 2)[0]["shared"]
    own = [read_state(tmp_path / f"clients/{i}", 2)[0]["tensors"] for i in range(3)]
    router = next(name for name in mean if is_router(name))
    assert [len(tensors.get(router, ())) for tensors in own] == [0, 2, 4]
    both = (own[1][router] + own[2][router][:2]) / 2
    torch.testing.assert_close(mean[router], torch.cat([both, own[2][router][2:]]))
    for expert, holders in {"generalist_0": own, "generalist_3": own[2:]}.items():
        name = next(n for n in mean if f"lora_B.{expert}." in n)
        torch.testing.assert_close(mean[name], sum(t[name] for t in holders) / len(holders))
    assert len(result.table) == 3


def test_what_it_evaluates_is_told_and_planned(equal, tmp_path):
    folder = comigs.run(equal, out=tmp_path / "run", method="comigs-adaptive").folder
    config = read_config(folder)
    told = {(e["round"], e.get("peer_evaluation_tokens")) for e in events(folder, "client")}
    assert {tokens for number, tokens in told if number > 1} == {comigs_adaptive.looks(config)}
    assert {tokens for number, tokens in told if number == 1} == {None}
    assert comigs_adaptive.looks(config) == 3 * comigs_adaptive.windows_of(config) * 16


def test_with_the_chunked_loss_all_logits_are_never_held(equal, tmp_path, monkeypatch):
    adaptive = equal | {"method": "comigs-adaptive"}
    plain = comigs.run(adaptive, out=tmp_path / "plain").table
    asked, real = set(), perplexity.token_loss

    def watched(model, windows, reduction="mean", chunked=False):
        asked.add(chunked)
        return real(model, windows, reduction, chunked)

    monkeypatch.setattr(perplexity, "token_loss", watched)
    chunked = comigs.run(adaptive, ["train.loss=chunked"], out=tmp_path / "chunked").table
    assert asked == {True}
    ends = [row["after"] for row in plain]
    assert [row["after"] for row in chunked] == pytest.approx(ends, rel=1e-4)
