"""MR-MTL: the pull towards the mean, and models that nobody overwrites."""

import pytest
import torch
from torch import nn

import comigs
from comigs.methods import mr_mtl
from tests.helpers import events
from tests.methods.stepping import LR, noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def test_the_penalty_is_half_lambda_times_the_squared_distance_from_the_mean(monkeypatch):
    monkeypatch.setattr(mr_mtl, "LAMBDA", 3.0)
    theta = nn.Parameter(torch.tensor([1.0, 5.0]))
    value = mr_mtl.penalty({"a": theta}, {"a": torch.tensor([0.0, 7.0])})
    value.backward()
    assert value.item() == pytest.approx(3 / 2 * (1 + 4))
    assert theta.grad.tolist() == [3.0, -6.0]  # lambda (theta - mean)


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_follows_the_gradient_and_lambda_times_the_gap(tree, tmp_path, monkeypatch, number):
    """The steps with lambda and without differ by -lr lambda (theta - mean), from equal starts."""
    client = plain_client(tree, "mr-mtl", local_steps=1)
    first, sent, _ = play(client, tmp_path, 1, 0, {})
    mean = noisy(sent) if number == 2 else {}
    after = {}
    for strength in (0.0, 2.0):
        monkeypatch.setattr(mr_mtl, "LAMBDA", strength)
        start, after[strength], _ = play(client, tmp_path, number, number - 1, mean)
    own = sent if number == 2 else first
    for name, tensor in own.items():
        assert torch.equal(start[name], tensor)  # the mean is not in it
        gap = tensor - mean.get(name, first[name])
        pulled = after[2.0][name] - after[0.0][name]
        torch.testing.assert_close(pulled, -LR * 2.0 * gap, rtol=1e-4, atol=1e-7)
    assert any((after[2.0][n] - after[0.0][n]).any() for n in own) == (number == 2)


def test_the_last_mean_changes_nothing(tree, tmp_path):
    config = tree | {"method": "mr-mtl", "experts": {"specialists": 1, "rank": 2}}
    comigs.run(config, out=tmp_path)
    assert [row["after"] for row in events(tmp_path, "final")] == [
        row["before"] for row in events(tmp_path, "final")
    ]
    held = [saved(tmp_path / "clients" / str(client), 3)[0]["tensors"] for client in range(3)]
    mean = saved(tmp_path / "server", 3)[0]["shared"]
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, sum(h[name] for h in held) / 3, rtol=0, atol=1e-6)
        assert ".lora_A." not in name or not torch.equal(held[0][name], held[1][name])
