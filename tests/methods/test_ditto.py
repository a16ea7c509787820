"""Ditto: the global model is FedAvg's, and the own one steps by the paper's equation."""

import torch
from torch import nn

import comigs
from comigs.methods import ditto
from comigs.methods.base import GLOBAL
from tests.helpers import events
from tests.methods.stepping import LR, gradient_at, noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def test_the_pull_is_lambda_times_the_gap(monkeypatch):
    monkeypatch.setattr(ditto, "LAMBDA", 0.5)
    v = nn.Parameter(torch.tensor([1.0, 5.0]))
    ditto.penalty({"a": v}, {"a": torch.tensor([0.0, 7.0])}).backward()
    assert v.grad.tolist() == [0.5, -1.0]


def test_two_steps_are_one_of_the_global_model_and_one_of_the_own(tree, tmp_path):
    """Round 2: w1 = w - lr grad F(w), v1 = v - lr (grad F(v) + lambda (v - w))."""
    client = plain_client(tree, "ditto", local_steps=2)
    _, first, _ = play(client, tmp_path, 1, 0, {})
    w = noisy(first)
    v, sent, _ = play(client, tmp_path, 2, 1, w)
    held = saved(tmp_path, 2)[0]
    assert all(torch.equal(v[n], saved(tmp_path, 1)[0]["tensors"][n]) for n in v)
    at_w, at_v = gradient_at(client, w, 2), gradient_at(client, v, 2, skip=1)
    for name in w:
        torch.testing.assert_close(sent[name], w[name] - LR * at_w[name], rtol=1e-4, atol=1e-6)
        pull = ditto.LAMBDA * (v[name] - w[name])
        expected = v[name] - LR * (at_v[name] + pull)
        torch.testing.assert_close(held["tensors"][name], expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(held["kept"][f"{GLOBAL}{name}"], sent[name])
        assert not torch.equal(sent[name], held["tensors"][name])


def test_rows_that_turn_keep_the_length_of_their_own_model(tree, tmp_path):
    turning = {"optimizer": "rotational_adamw", "lr": 0.05}
    client = plain_client(tree, "ditto", local_steps=2, train=turning)
    _, first, _ = play(client, tmp_path, 1, 0, {})
    w = noisy(first)
    v, sent, _ = play(client, tmp_path, 2, 1, w)
    held = saved(tmp_path, 2)[0]["tensors"]
    for name in (name for name in w if ".lora_A." in name):
        for before, after in ((w, sent), (v, held)):
            assert not torch.equal(before[name], after[name])
            torch.testing.assert_close(after[name].norm(dim=1), before[name].norm(dim=1))


def test_a_device_makes_as_many_steps_as_with_any_method(tree, tmp_path):
    settings = tree | {"experts": {"specialists": 1, "rank": 2}, "local_steps": 3}
    done = {}
    for method in ("ditto", "fedavg-moe"):
        folder = comigs.run(settings, out=tmp_path / method, method=method).folder
        done[method] = [(e["steps"], e["tokens"]) for e in events(folder, "client")]
    assert done["ditto"] == done["fedavg-moe"]
    moments = saved(tmp_path / "ditto" / "clients" / "0", 3)[0]["optimizer"]
    steps = {name: int(t) for name, t in moments.items() if name.startswith("step/")}
    assert {n for name, n in steps.items() if GLOBAL in name} == {5}  # 1, 3 | 5 | 7, 9 of 9
    assert {n for name, n in steps.items() if GLOBAL not in name} == {4}


def test_alone_the_global_model_is_what_it_would_be_without_an_own(tree, tmp_path, monkeypatch):
    """lambda = 0: the two do not know of each other, and others do not reach the own one."""
    monkeypatch.setattr(ditto, "LAMBDA", 0.0)
    client = plain_client(tree, "ditto", local_steps=2)
    after = []
    for seed in (1, 2):
        root = tmp_path / str(seed)
        _, first, _ = play(client, root, 1, 0, {})
        play(client, root, 2, 1, noisy(first, seed))
        after.append(saved(root, 2)[0]["tensors"])
    assert all(torch.equal(after[0][n], after[1][n]) for n in after[0])
