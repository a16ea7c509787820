"""Steps of the optimisers against torch's own, the papers' formulas by hand, and on spheres."""

import math
import re
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import comigs
from comigs.config.load import load_config
from comigs.config.train import TrainConfig
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.store.metrics import events_of
from comigs.training.optimizers import find_optimizer, make_optimizer
from comigs.training.optimizers.rotational_adamw import angle as adamw_angle
from comigs.training.optimizers.rotational_lion import angle as lion_angle
from comigs.training.optimizers.rotational_sgd import angle as sgd_angle
from comigs.training.schedules import find_schedule, learning_rate, rates_of
from comigs_server.checks.run import check
from tests.helpers import assert_same_numbers, run_and_resumed

pytest_plugins = ("tests.fixtures",)

A, B = "up.lora_A.generalist_0.weight", "up.lora_B.generalist_0.weight"
ROTATIONAL = ("rotational_adamw", "rotational_lion", "rotational_sgd")


def run(name, tensors, gradients, **settings):
    """The tensors after a step on each of some gradients."""
    parameters = {n: nn.Parameter(t.clone()) for n, t in tensors.items()}
    optimizer = make_optimizer(parameters, TrainConfig(optimizer=name, **settings), {})
    for gradient in gradients:
        for n, p in parameters.items():
            p.grad = gradient[n].clone()
        optimizer.step()
    return {n: p.detach() for n, p in parameters.items()}


def drawn(seed, count=5):
    rng = torch.Generator().manual_seed(seed)
    return [
        {A: torch.randn(3, 4, generator=rng), B: torch.randn(5, 3, generator=rng)}
        for _ in range(count + 1)
    ]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_where_nothing_turns_a_rotational_optimiser_steps_as_the_plain_one(name):
    """B, against torch's own optimisers; SGD's adds the decay to the gradient."""
    start, *gradients = drawn(1)
    settings = {"lr": 0.1, "weight_decay": 0.01 if name == "adamw" else 1e-12}
    plain = run(name, start, gradients, **settings)
    turned = run(f"rotational_{name}", start, gradients, **settings)
    torch.testing.assert_close(turned[B], plain[B], rtol=1e-5, atol=1e-6)


def test_two_steps_of_lion_and_liona_are_those_of_the_papers():
    start = {A: torch.tensor([[1.0, -2.0]])}
    gradients = [{A: torch.tensor([[1.0, -1.0]])}, {A: torch.tensor([[-1.0, -4.0]])}]
    # Lion, betas 0.9, 0.5: means 0, then (0.5, -0.5); ahead (0.1, -0.1), then (0.35, -0.85)
    found = run("lion", start, gradients, lr=0.1, weight_decay=0.1, betas=[0.9, 0.5])[A]
    once = torch.tensor([0.99 * 1 - 0.1, 0.99 * -2 + 0.1])
    torch.testing.assert_close(found[0], 0.99 * once - 0.1 * torch.tensor([1.0, -1.0]))
    # LionA, b 0.5: means (0.5, -0.5), then (-0.25, -2.25); ahead (0.75, -0.75), then both negative
    found = run("liona", start, gradients, lr=0.1, weight_decay=0.1, betas=[0.5, 0.5])[A]
    size = 0.1 * math.sqrt(0.5 / 1.5)
    once = torch.tensor([0.99 * 1 - size, 0.99 * -2 + size])
    torch.testing.assert_close(found[0], 0.99 * once + size)


def test_allora_divides_adamws_update_of_each_row_by_the_rows_length():
    """Against torch's AdamW with the rate of each row; routers step as ever."""
    start, gradient, _ = drawn(2, count=2)
    start[B][1:3] = 0.0
    start["up.router.weight"] = start[B].clone()
    gradient["up.router.weight"] = gradient[B]
    settings = {"lr": 0.1, "weight_decay": 0.0}
    plain, found = (run(name, start, [gradient], **settings) for name in ("adamw", "allora"))
    for name in (A, B):
        lengths = (start[name].norm(dim=1, keepdim=True) ** 2 + 0.01).sqrt()
        wanted = start[name] + (plain[name] - start[name]) / lengths
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)
    moved = (found[B] - start[B])[1:3].abs()  # tenfold where a row is 0, and finite
    torch.testing.assert_close(moved, torch.ones(2, 3), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["up.router.weight"], plain["up.router.weight"])


@pytest.mark.parametrize(
    ("experts", "reason"),
    [
        ({"dropout": 0.1}, "experts.dropout is 0.1; it must be 0"),
        ({}, "experts.alpha is 16, a scale of 11.3; it must be 1: set experts.scaling to "),
        ({"scaling": "standard"}, "to standard and experts.alpha to 2"),
        ({"scaling": "standard", "alpha": 2}, None),
        ({"scaling": "standard", "alpha": 2, "rank": [2, 2, 4]}, "must be one for all clients"),
    ],
)
def test_allora_has_neither_dropout_nor_scale(tree, experts, reason):
    tree = tree | {"train": {"optimizer": "allora"}}
    tree["experts"] = tree["experts"] | {"dropout": 0.0} | experts
    refused = pytest.raises(BadInput, match=re.escape(reason)) if reason else nullcontext()
    with refused:
        check(resolve(load_config(tree)))


def test_the_first_turn_is_by_the_angle_that_the_paper_says():
    """One row of length 5; the update's part at right angles to it is its own usual length."""
    start = {A: torch.tensor([[3.0, 4.0]])}
    gradient = {A: torch.tensor([[4.0, -3.0]])}  # at right angles: nothing of it is along the row
    settings = {"lr": 0.02, "weight_decay": 0.1, "betas": [0.9, 0.95]}
    [row] = run("rotational_sgd", start, [gradient], **settings)[A]
    angle = math.sqrt(2 * 0.02 * 0.1 / 1.9)
    assert sgd_angle(0.02, 0.1, [0.9, 0.95]) == pytest.approx(angle)
    moved = torch.tensor([3.0, 4.0]) - angle * torch.tensor([4.0, -3.0])
    torch.testing.assert_close(row, 5 * moved / moved.norm())
    turned = math.acos(float(row @ start[A][0]) / 25)
    assert turned == pytest.approx(math.atan(angle), rel=1e-4)


def test_the_angles_of_adamw_and_lion_are_the_papers():
    assert adamw_angle(0.01, 0.5, [0.9, 0.95]) == pytest.approx(math.sqrt(0.01 * 0.1 / 1.9))
    spread = 0.1**2 + 0.9**2 * 0.01 / 1.99
    expected = math.sqrt(math.pi / 2 * 2 * 0.01 * 0.5 * spread)
    assert lion_angle(0.01, 0.5, [0.9, 0.99]) == pytest.approx(expected)


@given(name=st.sampled_from(ROTATIONAL), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e3))
def test_rows_of_a_keep_their_length_and_nothing_becomes_nan(name, seed, scale):
    start, *gradients = drawn(seed)
    start = {A: start[A] * scale, B: torch.zeros_like(start[B])}
    found = run(name, start, gradients, lr=0.1, weight_decay=0.1)
    torch.testing.assert_close(found[A].norm(dim=1), start[A].norm(dim=1), rtol=1e-6, atol=0)
    assert found[B].isfinite().all() and not torch.equal(found[A], start[A])


@pytest.mark.parametrize("name", ROTATIONAL)
def test_a_row_of_zeros_stays_one(name):
    start, *gradients = drawn(2)
    start[A][1] = 0
    found = run(name, start, gradients)[A]
    assert found.isfinite().all() and not found[1].any()


def test_without_decay_a_rotational_optimiser_is_refused_before_anything_starts(tree, tmp_path):
    settings = ["train.optimizer=rotational_lion", "train.weight_decay=0"]
    with pytest.raises(BadInput, match=r"train.weight_decay is 0.0; .* give it a number above 0"):
        comigs.run(tree, settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rotational_run_resumes_bit_for_bit_and_learns(tree, tmp_path):
    tree = tree | {"train": {"optimizer": "rotational_adamw", "lr": 0.05, "weight_decay": 0.1}}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)
    losses = [e.loss for e in events_of(whole) if type(e).__name__ == "RoundDone"]
    assert losses[-1] < losses[0]


def test_warmup_rises_to_the_schedule_along_a_line():
    cosine = find_schedule("cosine")
    rates = [learning_rate(cosine, 2.0, step, 40, warmup=0.1) for step in range(40)]
    whole = [learning_rate(cosine, 2.0, step, 40) for step in range(40)]
    shares = [a / b for a, b in zip(rates, whole, strict=True)]
    assert shares == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 37)


def test_a_longer_run_warms_up_by_the_rounds_it_had():
    """Two rounds of two steps became four: half of the steps rise, in the first two rounds two."""
    tree = {"rounds": 4, "train": {"schedule": "constant", "lr": 1.0, "warmup": 0.5}}
    once = rates_of(load_config(tree), 2)
    longer = rates_of(load_config(tree | {"extended": [[2, 2]]}), 2)
    assert [once(at) for at in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert [longer(at) for at in range(8)] == [0.5, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "half"), [("wsd", 1 - math.sqrt(0.5)), ("wsd_linear", 0.5), ("wsd_cosine", 0.5)]
)
def test_a_cooldown_is_the_last_fifth(name, half):
    schedule = find_schedule(name)
    assert [schedule(p) for p in (0.0, 0.5, 0.8)] == [1.0] * 3
    assert schedule(0.9) == pytest.approx(half)


def test_rex_is_slow_at_first():
    assert find_schedule("rex")(0.5) == pytest.approx(2 / 3)


def test_muon_moves_a_matrix_along_what_is_nearly_orthogonal():
    start, gradient, *_ = drawn(3)
    moved = start[A] - run("muon", start, [gradient], lr=1.0, weight_decay=0.0)[A]
    sizes = torch.linalg.svdvals(moved)
    assert sizes.max() / sizes.min() < 2 < torch.linalg.svdvals(gradient[A]).max()
    assert find_optimizer("muon").rates is None


def test_the_rate_rises_again_at_the_start_of_each_round():
    settings = {"lr": 0.1, "schedule": "constant", "rewarm": 0.5}
    rate = rates_of(load_config({"train": settings, "rounds": 2}), 4)
    assert [rate(at) for at in range(8)] == pytest.approx([0.05, 0.1, 0.1, 0.1] * 2)
    with pytest.raises(BadInput, match=r"train\.rewarm is 1\.0"):
        TrainConfig(rewarm=1.0)
