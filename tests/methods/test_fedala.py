"""FedALA: what W learns, where, how long, and what that costs."""

import pytest
import torch

import comigs
from comigs.federation.clients import data_of, model_of
from comigs.methods import fedala
from comigs.methods.arrival import Arrival
from comigs.methods.fedala import WEIGHT, higher, learnt, looks, steady
from comigs.mixture.adapters import adapter_parameters
from tests.helpers import events
from tests.methods.stepping import gradient_on_draw, noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def test_w_goes_against_its_gradient_and_is_clipped():
    weight, gradient = torch.tensor([1.0, 0.5, 0.1, 1.0]), torch.tensor([2.0, -0.1, 3.0, -1.0])
    gap = torch.tensor([0.25, 2.0, 1.0, 1.0])
    torch.testing.assert_close(learnt(weight, gradient, gap), torch.tensor([0.5, 0.7, 0.0, 1.0]))


def test_the_higher_layers_are_the_last_decoder_layers(monkeypatch):
    names = ["transformer.h.9.mlp.a", "transformer.h.10.mlp.a", "transformer.h.11.attn.a", "other"]
    assert higher(names) == ["transformer.h.11.attn.a"]
    monkeypatch.setattr(fedala, "HIGHER", 2)
    assert higher(names) == ["transformer.h.10.mlp.a", "transformer.h.11.attn.a"]
    monkeypatch.setattr(fedala, "HIGHER", 99)
    assert higher(names) == names[:3]


def test_a_first_study_ends_when_the_last_losses_are_steady():
    assert not steady([1.0] * 10) and steady([1.0] * 11)
    falling = [float(i) for i in range(99, -1, -1)]
    assert not steady(falling[:99]) and steady(falling)


def test_a_round_begins_from_own_and_mean_by_the_papers_equation(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(fedala, "ETA", 200.0)
    monkeypatch.setattr(fedala, "steady", lambda losses: True)  # one pass, of one batch
    client = plain_client(tree, "fedala", local_steps=1)
    _, own, _ = play(client, tmp_path, 1, 0, {})
    weight = dict.fromkeys(own, 1.0)
    for number in (2, 3):
        mean = noisy(own, number)
        start = {n: own[n] + (mean[n] - own[n]) * weight[n] for n in own}
        found = gradient_on_draw(client, start, number, "fedala")
        begun, trained, _ = play(client, tmp_path, number, number - 1, mean)
        upper = higher(own)
        for name in own:
            if name in upper:
                step = 200.0 * found[name] * (mean[name] - own[name])
                weight[name] = (weight[name] - step).clamp(0, 1)
                held = saved(tmp_path, number)[0]["kept"][f"{WEIGHT}{name}"]
                torch.testing.assert_close(held, weight[name], rtol=1e-3, atol=1e-4)
            expected = own[name] + (mean[name] - own[name]) * weight[name]
            torch.testing.assert_close(begun[name], expected, rtol=1e-3, atol=2e-5)
            assert name in upper or torch.equal(begun[name], mean[name])
        own = trained
    assert all(".h.1." in name for name in upper) and len(upper) < len(own)
    assert 0 < min(float(weight[n].min()) for n in upper) < 1 or any(
        (weight[n] == 0).any() for n in upper
    )


def test_its_passes_are_told_and_planned(tree, tmp_path):
    more = {"method": "fedala", "experts": {"rank": 2}, "rounds": 4, "local_steps": 5}

    folder = comigs.run(tree | more, out=tmp_path).folder
    told = {e["round"]: e.get("peer_evaluations") for e in events(folder, "client")}
    assert told == {1: None, 2: 11, 3: 1, 4: 1}
    assert {row["peer_evaluations"] for row in events(folder, "final")} == {1}
    client = plain_client(tree, "fedala", rounds=4, local_steps=5)
    one = 4 * 2 * 16  # 80 % of 5 batches of 2 sequences of 16 tokens
    spent = [e.get("peer_evaluation_tokens", 0) for e in events(folder, "client")]
    assert sum(spent) == 3 * 13 * one
    assert looks(client.run.config) == round(one * (10 + 3) / 3)


def test_the_flops_of_a_look_are_those_of_a_study(tree, monkeypatch):
    from comigs.costs.work import token_flops
    from tests.costs.test_work import Counter

    monkeypatch.setattr(fedala, "steady", lambda losses: True)
    client = plain_client(tree, "fedala", local_steps=1)
    model, data, config = model_of(client), data_of(client), client.config
    values = {n: p.detach().clone() for n, p in adapter_parameters(model).items()}
    arrival = Arrival(model, noisy(values), {}, data, config, 0, 2, {}, {})
    with Counter() as counter:
        metrics = fedala.receive(arrival)
    tokens = metrics["peer_evaluation_tokens"]
    assert counter.total / tokens == pytest.approx(token_flops(client).look, rel=0.01)
