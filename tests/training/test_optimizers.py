"""Optimisers keep their moments across rounds; schedules follow the global step."""

import itertools

import pytest
import torch
from torch import nn

from comigs.config.train import TrainConfig
from comigs.training.optimizers import adam_rates, make_optimizer, moments_of
from comigs.training.schedules import SCHEDULES, learning_rate


def steps(parameters, optimizer, count):
    for i in range(count):
        for p in parameters.values():
            p.grad = torch.full_like(p, 0.1 * (i + 1))
        optimizer.step()


def test_saved_moments_continue_bit_for_bit():
    start = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    whole = {n: nn.Parameter(t.clone()) for n, t in start.items()}
    steps(whole, make_optimizer(whole, TrainConfig(), {}), 2)
    before = {n: p.detach().clone() for n, p in whole.items()}

    halves = {n: nn.Parameter(t.clone()) for n, t in start.items()}
    first = make_optimizer(halves, TrainConfig(), {})
    steps(halves, first, 2)
    moments = moments_of(first, halves)
    assert set(moments) == {f"{k}/{n}" for k in ("step", "exp_avg", "exp_avg_sq") for n in "ab"}
    for name in before:
        assert torch.equal(before[name], halves[name])

    one = make_optimizer(whole, TrainConfig(), moments)
    two = make_optimizer(halves, TrainConfig(), moments)
    steps(whole, one, 1)
    steps(halves, two, 1)
    assert all(torch.equal(whole[n], halves[n]) for n in whole)
    assert moments["step/a"].item() == 2  # restoring copies: what was saved does not move


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_at_the_peak_and_end_where_they_should(schedule):
    rates = [learning_rate(schedule, 1.0, step, 200) for step in range(200)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_adam_rates_stay_bounded_where_the_gradient_was_zero():
    """Against lr (1 - beta_1) / sqrt(v), where the gradient was steady."""
    parameters = {"a": torch.nn.Parameter(torch.zeros(3)), "b": torch.nn.Parameter(torch.ones(2))}
    optimizer = make_optimizer(parameters, TrainConfig(lr=0.1), {})
    assert adam_rates(optimizer) == [0.0, 0.0]
    for _ in range(50):
        parameters["a"].grad = torch.tensor([2.0, 2.0, 0.0])
        parameters["b"].grad = torch.zeros(2)
        optimizer.step()
    rates, none = adam_rates(optimizer)
    rms = (8 / 3) ** 0.5
    expected = 0.1 * torch.tensor([0.1 / (2 + rms), 0.1 / (2 + rms), 0.1 / rms])
    torch.testing.assert_close(rates, expected, rtol=1e-4, atol=0)
    assert none == 0.0
