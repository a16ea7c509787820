"""Training on rows of examples: the loss is the mean over what is predicted, however split."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import comigs
from comigs.config.experts import RouterConfig
from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.data.windows import FILLING, marked, packed
from comigs.federation.run import resolve
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, init_adapters
from comigs.mixture.experts import routings
from comigs.training.bilevel import train_group
from comigs.training.trainee import Learner, Trainee
from tests.backbone.test_families import base_of

LENGTH = 12
CONFIG = RunConfig(
    data=DataConfig(seq_len=LENGTH),
    router=RouterConfig(every=2, steps=1, balance=0.3),
    rounds=4,
    local_steps=2,
    batch_size=4,
)
KINDS = [(1, 1), (2, 2), (3, 1), (3, 2)]  # experts, top_k


def rows_of(seed, count=30):
    """Rows of examples of 3 to 13 tokens, of which a fifth to all are answers."""
    rng = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high + 1, (), generator=rng))

    examples = []
    for _ in range(count):
        tokens = torch.randint(64, (number(3, LENGTH + 1),), generator=rng)
        learnt = torch.arange(len(tokens)) >= number(1, len(tokens) - 1)
        examples.append(marked(tokens, learnt))
    return packed(examples, LENGTH + 1)


def examples_in(row):
    entries = row[row != FILLING]
    return entries.tensor_split((entries < -(1 << 32)).nonzero().flatten()[1:])


def literal(model, rows, top_k):
    """CE and balance of rows, example by example, from Transformers' own forward pass."""
    total, count = 0.0, 0
    routed = []
    for row in rows:
        room = LENGTH  # tokens of a row that are read
        for part in examples_in(row):
            ids = torch.where(part < 0, (-1 - part) % (1 << 32), part)[None]
            labels = part[None].where(part[None] >= 0, -100)
            logits = model(input_ids=ids, use_cache=False).logits
            total = total + F.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
            count += int((labels[:, 1:] >= 0).sum())
            routed.append([routing.logits[:room] for routing in routings(model)])
            room -= len(part)
    balances = [layer_balance(torch.cat(layer), top_k) for layer in zip(*routed, strict=True)]
    return total / count, sum(balances, torch.zeros(())) / max(1, len(balances))


def layer_balance(logits, top_k):
    """E^2 mean(d p c) of METHODS, section 1, with iota 1/2."""
    n_experts = logits.shape[-1]
    chosen = logits.topk(top_k, -1).indices
    hits = F.one_hot(chosen, n_experts).sum(1)
    share = hits.sum(0) / hits.sum()
    weights = (logits * hits).softmax(-1) if top_k > 1 else logits.softmax(-1) * hits
    p = weights.mean(0)
    c = torch.full((n_experts,), 2 * (n_experts - 1) / n_experts)
    c[0] = 2 / n_experts
    return n_experts**2 * (share * p * c).mean()


def trainee(base, client, experts, config, rows):
    shared = {id(t): t for t in base.parameters()}
    model = comigs.add_experts(copy.deepcopy(base, memo=shared), experts)
    init_adapters(model, 0, client)
    rng = torch.Generator().manual_seed(client)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.05)
    return Trainee(resolve(config).client(client), model, rows, rows_of(90 + client), {}, 0)


def trained(trainees, together=False, steps=4):
    """Losses, balances and tensors of each, once they are trained."""
    groups = [trainees] if together else [[each] for each in trainees]
    results = [r for group in groups for r in train_group(group, round_number=1, steps=steps)]
    return [
        (stats.losses, stats.balances, adapter_tensors(each.model))
        for (_, stats), each in zip(results, trainees, strict=True)
    ]


def assert_alike(one, two):
    for (losses, balances, tensors), (their_losses, their_balances, theirs) in zip(
        one, two, strict=True
    ):
        assert losses == pytest.approx(their_losses, rel=1e-5)
        assert balances == pytest.approx(their_balances, rel=1e-5)
        for name, tensor in tensors.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("experts, top_k", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_step_is_the_literal_one_of_each_example_alone(family, experts, top_k):
    """Plain descent on CE + lambda balance, with micro-batches of 1, 2 and all."""
    config = replace(
        CONFIG, train=TrainConfig(optimizer="sgd", lr=0.05, weight_decay=0.0, clip=None)
    )
    settings = comigs.ExpertsConfig(specialists=experts - 1, top_k=top_k, rank=2)
    rows, base = rows_of(1), base_of(family)
    first = trainee(base, 0, settings, config, rows)
    windows = Learner(first, 1).expert_part(None, 0).windows
    assert (windows == FILLING).any()
    with comigs.training_experts(first.model):
        ce, balance = literal(first.model, windows, top_k)
        (ce + config.router.balance * balance).backward()
    start = adapter_tensors(first.model)
    for micro in (1, 2, None):
        own = replace(config, micro_batch_size=micro)
        [(losses, balances, after)] = trained([trainee(base, 0, settings, own, rows)], steps=1)
        assert losses == [pytest.approx(ce.item(), rel=1e-5)]
        assert balances == [pytest.approx(balance.item(), rel=1e-5)]
        for name, parameter in adapter_parameters(first.model).items():
            if parameter.grad is not None:
                moved = (start[name] - after[name]) / 0.05
                torch.testing.assert_close(moved, parameter.grad, rtol=1e-3, atol=5e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("experts, top_k", KINDS)
def test_clients_in_one_pass_train_as_each_alone(experts, top_k):
    settings = comigs.ExpertsConfig(specialists=experts - 1, top_k=top_k, rank=2)
    base, outcomes = base_of("llama"), []
    for micro in (None, 2):
        config = replace(CONFIG, micro_batch_size=micro)
        for together in (False, True):
            group = [trainee(base, i, settings, config, rows_of(i)) for i in range(3)]
            outcomes.append(trained(group, together))
    for other in outcomes[1:]:
        assert_alike(outcomes[0], other)


def test_a_client_of_plain_text_trains_beside_one_of_chats():
    settings = comigs.ExpertsConfig(specialists=1, rank=2)
    text, base = torch.randint(64, (300,), generator=torch.Generator().manual_seed(3)), None
    base, outcomes = base_of("llama"), []
    for together in (False, True):
        group = [trainee(base, i, settings, CONFIG, r) for i, r in enumerate((text, rows_of(0)))]
        outcomes.append(trained(group, together))
    assert_alike(*outcomes)


@pytest.mark.parametrize("micro", [None, 2])
def test_the_chunked_loss_trains_as_the_full_one(micro):
    settings = comigs.ExpertsConfig(specialists=1, rank=2)
    base, outcomes = base_of("gpt2"), []
    for loss in ("full", "chunked"):
        config = replace(CONFIG, train=TrainConfig(loss=loss), micro_batch_size=micro)
        outcomes.append(trained([trainee(base, 0, settings, config, rows_of(5))]))
    assert_alike(*outcomes)


def test_filling_changes_nothing():
    """Longer rows with the same examples, one a row, in batches that hold all of them."""
    settings = comigs.ExpertsConfig(specialists=2, top_k=1, rank=2)
    base = base_of("gpt2")
    rows = torch.stack([packed(list(examples_in(row)[:1]), 20)[0] for row in rows_of(7)[:4]])
    short = rows[:, : int((rows != FILLING).sum(1).max()) + 1]
    assert short.shape[1] < 20
    outcomes = []
    for each in (rows, short):
        one = trainee(base, 0, settings, CONFIG, each)
        outcomes.append(trained([one]))
    assert_alike(*outcomes)


def test_the_first_order_gradient_moves_the_router_as_with_the_examples_alone():
    router = RouterConfig(every=2, steps=1, grad="first_order", balance=0.3)
    settings = comigs.ExpertsConfig(specialists=1, rank=2)
    base, outcomes = base_of("gpt2"), []
    for wide in (LENGTH + 1, 30):  # the same rows, with more filling
        config = replace(CONFIG, router=router)
        rows = [packed(list(examples_in(row)), wide) for row in rows_of(3)]
        one = trainee(base, 0, settings, config, torch.cat(rows))
        valid = torch.cat([packed(list(examples_in(row)), wide) for row in one.valid])
        outcomes.append(trained([replace(one, valid=valid)]))
    before = adapter_tensors(one.model)
    assert any(".router." in name for name in before)
    assert_alike(*outcomes)
