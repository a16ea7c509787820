"""Optimisers keep their moments across rounds; schedules follow the global step."""

import itertools

import pytest
import torch
from torch import nn

import comigs
from comigs.config.load import load_config
from comigs.config.train import TrainConfig
from comigs.costs.memory import peak_memory
from comigs.errors import BadInput
from comigs.schema.byfile import members_of
from comigs.training import optimizers, schedules
from comigs.training.optimizers import find_optimizer, make_optimizer, moments_of
from comigs.training.optimizers.adamw import rates as adam_rates
from comigs.training.schedules import find_schedule, learning_rate
from tests.helpers import assert_same_numbers, client_of, run_and_resumed

pytest_plugins = ("tests.fixtures",)

A, B = "up.lora_A.generalist_0.weight", "up.lora_B.generalist_0.weight"
ADAM = {"step", "exp_avg", "exp_avg_sq"}
STATE = {
    "adamw": ADAM,
    "allora": ADAM,
    "sgd": {"momentum_buffer"},
    "lion": {"exp_avg"},
    "liona": {"exp_avg"},
    "muon": {"momentum_buffer"},
    "rotational_adamw": ADAM,
    "rotational_lion": {"exp_avg"},
    "rotational_sgd": {"momentum_buffer"},
}
OF_A = {"turns", "across_sq"}


def keys_of(name):
    """What each optimiser keeps for A and B, as names in a saved round."""
    of_a = OF_A if name.startswith("rotational") else set()
    return {f"{k}/{B}" for k in STATE[name]} | {f"{k}/{A}" for k in STATE[name] | of_a}


def pair():
    rng = torch.Generator().manual_seed(0)
    return {A: torch.randn(3, 4, generator=rng), B: torch.randn(5, 3, generator=rng)}


def steps(parameters, optimizer, count):
    for i in range(count):
        for p in parameters.values():
            p.grad = torch.full_like(p, 0.1 * (i + 1))
        optimizer.step()


@pytest.mark.parametrize("name", list(members_of(optimizers, optimizers.HOUSE)))
def test_saved_moments_continue_bit_for_bit(name):
    config = TrainConfig(optimizer=name)
    start = pair()
    whole = {n: nn.Parameter(t.clone()) for n, t in start.items()}
    steps(whole, make_optimizer(whole, config, {}), 2)
    before = {n: p.detach().clone() for n, p in whole.items()}

    halves = {n: nn.Parameter(t.clone()) for n, t in start.items()}
    first = make_optimizer(halves, config, {})
    steps(halves, first, 2)
    moments = moments_of(first, halves)
    assert set(moments) == keys_of(name)
    assert all(torch.equal(before[n], halves[n]) for n in before)

    one = make_optimizer(whole, config, {key: kept.clone() for key, kept in moments.items()})
    two = make_optimizer(halves, config, moments)
    steps(whole, one, 1)
    steps(halves, two, 1)
    assert all(torch.equal(whole[n], halves[n]) for n in whole)


@pytest.mark.parametrize("name", list(members_of(optimizers, optimizers.HOUSE)))
def test_the_bytes_of_the_state_are_those_that_are_promised(name):
    parameters = {n: nn.Parameter(t) for n, t in pair().items()}
    optimizer = make_optimizer(parameters, TrainConfig(optimizer=name), {})
    steps(parameters, optimizer, 1)
    held = sum(t.numel() * t.element_size() for t in moments_of(optimizer, parameters).values())
    promised = find_optimizer(name).state_bytes
    assert held == sum(promised(n, p.shape) for n, p in parameters.items())


def test_sgd_takes_half_of_the_memory_and_resumes_bit_identically(tree, tmp_path):
    def moments(name):
        config = load_config(tree | {"train": {"optimizer": name}})
        return peak_memory(client_of(config)).moments

    assert moments("sgd") < 0.51 * moments("adamw")
    tree = tree | {"train": {"optimizer": "sgd", "lr": 0.5}}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("train.optimizer=adamm", "did you mean adamw?"),
        ("train.schedule=cosin", "did you mean cosine?"),
        ("train.warmup=1", "train.warmup is 1.0; it must be a share of the steps in [0, 1)"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_starts(setting, hint, tree, tmp_path):
    with pytest.raises(BadInput) as refused:
        comigs.run(tree, [setting], out=tmp_path / "run")
    assert hint in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_first_order_needs_an_optimiser_that_tells_its_step_sizes(tree, tmp_path, monkeypatch):
    (tmp_path / "blind.py").write_text(
        "from comigs.training.optimizers import LocalOptimizer, sgd\n"
        "OPTIMIZER = LocalOptimizer(sgd.make, sgd.floats)\n"
    )
    monkeypatch.setattr(optimizers, "__path__", [*optimizers.__path__, str(tmp_path)])
    settings = ["train.optimizer=blind", "router.grad=first_order"]
    with pytest.raises(BadInput, match=r"train.optimizer 'blind' does not tell its step sizes"):
        comigs.run(tree, settings, out=tmp_path / "run")


@pytest.mark.parametrize("schedule", list(members_of(schedules, schedules.HOUSE)))
def test_schedules_start_at_the_peak_and_end_where_they_should(schedule):
    rates = [learning_rate(find_schedule(schedule), 1.0, step, 200) for step in range(200)]
    assert rates[0] == 1.0
    end = {"constant": 1.0, "cosine": 0.1, "linear": 0.1}.get(schedule, 0.0)
    assert rates[-1] == pytest.approx(end)
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
