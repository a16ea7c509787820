"""Local training: the two levels are separate, and counters, moments and batches survive rounds."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers as tf

import comigs
from comigs.config.experts import RouterConfig
from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.evaluation.perplexity import token_loss
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, init_adapters, is_router
from comigs.mixture.experts import balance_loss
from comigs.training.bilevel import train_locally
from tests.helpers import client_of

CONFIG = RunConfig(
    data=DataConfig(seq_len=8),
    router=RouterConfig(every=3, steps=2),
    rounds=4,
    local_steps=5,
    batch_size=4,
)
TRAIN = torch.randint(32, (400,), generator=torch.Generator().manual_seed(1))
VALID = torch.randint(32, (300,), generator=torch.Generator().manual_seed(2))


def make_model(**experts):
    torch.manual_seed(0)
    base = tf.GPT2LMHeadModel(
        tf.GPT2Config(
            vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16, initializer_range=0.2
        )
    ).eval()
    model = comigs.add_experts(base, comigs.ExpertsConfig(rank=4, **experts))
    init_adapters(model, 0, 0)
    with torch.no_grad():  # B starts at 0; move it so that every tensor has a gradient
        for name, parameter in adapter_parameters(model).items():
            if ".lora_B." in name:
                parameter.fill_(0.02)
    return model


def train(model, config=CONFIG, moments=None, number=1, done=0, steps=5, **more):
    return train_locally(
        client_of(config),
        model,
        TRAIN,
        VALID,
        moments or {},
        round_number=number,
        steps=steps,
        steps_done=done,
        **more,
    )


MODES = [
    {"specialists": 1, "top_k": 2},
    {"specialists": 2, "top_k": 1},
    {"specialists": 3, "top_k": 2},
    {"specialists": 1, "top_k": 2, "dropout": 0.2},
    {"generalists": 2, "specialists": 0},
]


@pytest.mark.parametrize("experts", MODES, ids=str)
def test_an_expert_step_gives_routers_no_gradient_and_a_router_step_none_to_experts(experts):
    model = make_model(**experts)
    windows = TRAIN[:36].view(4, 9)
    for level, trains_router in [(comigs.training_experts, False), (comigs.training_router, True)]:
        model.zero_grad(set_to_none=True)
        with level(model):
            (token_loss(model, windows) + balance_loss(model)).backward()
        for name, parameter in adapter_parameters(model).items():
            if is_router(name) == trains_router:
                assert parameter.grad is not None, name
            else:
                assert parameter.grad is None, name
        frozen = [
            p for n, p in model.named_parameters() if ".lora_" not in n and ".router" not in n
        ]
        assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize("experts", MODES, ids=str)
def test_each_level_changes_only_its_own_tensors(experts):
    model = make_model(**experts)
    start = adapter_tensors(model)
    train(model, replace(CONFIG, router=RouterConfig(every=100)))
    after_experts = adapter_tensors(model)
    for name in start:
        assert torch.equal(start[name], after_experts[name]) == is_router(name), name


def test_router_text_does_not_reach_experts_before_a_router_step():
    one, two = make_model(), make_model()
    train(one, steps=3)
    kept = VALID.clone()
    try:
        VALID.copy_(VALID.flip(0))
        train(two, steps=3)  # the router steps after step 3; experts must not have noticed
    finally:
        VALID.copy_(kept)
    a, b = adapter_tensors(one), adapter_tensors(two)
    assert all(torch.equal(a[n], b[n]) for n in a if not is_router(n))
    assert any(not torch.equal(a[n], b[n]) for n in a if is_router(n))


@pytest.mark.parametrize("source", ["valid", "train"])
def test_router_data_names_the_text_that_routers_learn_on(source):
    config = replace(CONFIG, router=replace(CONFIG.router, data=source))
    outcomes = []
    for valid in (VALID, VALID.flip(0)):
        model = make_model()
        train_locally(
            client_of(config), model, TRAIN, valid, {}, round_number=1, steps=3, steps_done=0
        )
        outcomes.append({n: t for n, t in adapter_tensors(model).items() if is_router(n)})
    same = all(torch.equal(outcomes[0][n], outcomes[1][n]) for n in outcomes[0])
    assert same == (source == "train")


def test_the_router_counter_spans_rounds():
    model = make_model()
    seen = [train(model, number=n, done=5 * (n - 1))[1].router_steps for n in (1, 2, 3)]
    assert seen == [2, 4, 4]  # updates after steps 3 | 6, 9 | 12, 15, of 2 router steps each


def test_a_frozen_router_stays_as_drawn():
    model = make_model()
    start = adapter_tensors(model)
    train(model, replace(CONFIG, router=replace(CONFIG.router, trainable=False)))
    assert all(torch.equal(t, start[n]) for n, t in adapter_tensors(model).items() if is_router(n))


def test_moments_carry_over_rounds():
    model = make_model()
    moments, _ = train(model)
    assert any(key.startswith("exp_avg_sq/") and is_router(key) for key in moments)
    steps = {v.item() for k, v in moments.items() if k.startswith("step/") and not is_router(k)}
    assert steps == {5.0}
    fresh = copy.deepcopy(model)
    train(model, moments=moments, number=2, done=5)
    train(fresh, number=2, done=5)
    a, b = adapter_tensors(model), adapter_tensors(fresh)
    assert any(not torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("experts", MODES[:3], ids=str)
def test_micro_batches_give_the_full_batchs_step(experts):
    results = []
    for micro in (None, 2, 1):
        settings = replace(CONFIG.router, balance=0.5, generalist_importance=0.3)
        config = replace(CONFIG, micro_batch_size=micro, router=settings)
        moments, stats = train(make_model(**experts), config, steps=1)
        gradients = {name: t for name, t in moments.items() if name.startswith("exp_avg/")}
        results.append((gradients, stats.losses[0], stats.balances[0]))
    (full, loss, balance), *others = results
    for gradients, micro_loss, micro_balance in others:
        assert micro_loss == pytest.approx(loss, rel=1e-5)
        assert micro_balance == pytest.approx(balance, rel=1e-5)
        for name in full:
            torch.testing.assert_close(gradients[name], full[name], rtol=1e-4, atol=1e-7)


def test_training_is_a_function_of_the_seed_alone():
    one, two, other = make_model(), make_model(), make_model()
    train(one)
    torch.manual_seed(99)
    torch.rand(7)
    train(two)
    train(other, replace(CONFIG, seed=43))
    a, b, c = adapter_tensors(one), adapter_tensors(two), adapter_tensors(other)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)


def test_training_lowers_the_loss():
    model = make_model()
    repeated = torch.arange(8).repeat(60)
    config = replace(CONFIG, train=TrainConfig(lr=5e-2))
    _, stats = train_locally(
        client_of(config), model, repeated, repeated, {}, round_number=1, steps=60, steps_done=0
    )
    assert stats.losses[-1] < 0.8 * stats.losses[0]


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_setting():
    model = make_model()
    with torch.no_grad():
        next(p for n, p in adapter_parameters(model).items() if ".lora_A." in n).fill_(float("nan"))
    with pytest.raises(comigs.ComigsError, match=r"train\.lr"):
        train(model)


def test_a_first_order_router_step_changes_only_routers():
    config = replace(CONFIG, router=RouterConfig(every=5, steps=3, grad="first_order", lr=0.01))
    model, twin = make_model(specialists=1, top_k=2), make_model(specialists=1, top_k=2)
    train(model, config)
    train(twin, replace(config, router=replace(config.router, trainable=False)))
    ours, theirs = adapter_tensors(model), adapter_tensors(twin)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]) == (not is_router(name)), name


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_without_inner_movement_first_order_is_alternation(dropout):
    """At zero inner step size theta_nu is theta_0, so that the difference is nothing."""
    config = replace(CONFIG, train=TrainConfig(lr=1e-30), router=RouterConfig(every=5, lr=0.01))
    experts = {"specialists": 1, "top_k": 2, "dropout": dropout}
    one, two = make_model(**experts), make_model(**experts)
    first_order = replace(config.router, grad="first_order", steps=1)
    train(one, replace(config, router=first_order))
    train(two, replace(config, router=replace(config.router, steps=1)))
    for name, tensor in adapter_tensors(one).items():
        torch.testing.assert_close(tensor, adapter_tensors(two)[name], rtol=0, atol=1e-6)
