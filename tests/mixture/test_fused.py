"""Clients in one pass train as if each trained alone, and fail alone."""

import copy
import logging
from dataclasses import replace
from functools import cache

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

import comigs
from comigs.config.experts import PLAIN, RouterConfig
from comigs.config.load import config_hash, identity, load_config
from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.federation.run import resolve
from comigs.mixture.adapters import adapter_tensors, init_adapters
from comigs.mixture.fused import join
from comigs.training.bilevel import train_group
from comigs.training.trainee import Trainee
from tests.backbone.test_families import CONFIGS, base_of
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)

N = 3
CONFIG = RunConfig(
    data=DataConfig(seq_len=8),
    router=RouterConfig(every=3, steps=2, balance=0.1),
    train=TrainConfig(clip=1.0),
    rounds=4,
    local_steps=4,
    batch_size=4,
)
TEXTS = [torch.randint(64, (300,), generator=torch.Generator().manual_seed(i)) for i in range(N)]


@cache
def models_of(family, experts, routes=PLAIN):
    """N models over one base; every test begins them anew."""
    base = base_of(family)
    shared = {id(t): t for t in base.parameters()}
    bases = [copy.deepcopy(base, memo=dict(shared)) for _ in range(N)]
    return [comigs.add_experts(each, experts, routes=routes) for each in bases]


def trainees(family, experts, config=CONFIG, steps_done=(0, 0, 0)):
    """N clients with adapters of their own over one base, as they are before round 1."""
    found, run, models = [], resolve(config), models_of(family, experts, config.router.routes)
    for client, (model, text, done) in enumerate(zip(models, TEXTS, steps_done, strict=True)):
        init_adapters(model, 0, client)
        model.zero_grad(set_to_none=True)
        found.append(Trainee(run.client(client), model, text, text.flip(0), {}, done))
    return found


def train(group, together):
    parts = [group] if together else [[each] for each in group]
    results = []
    for part in parts:
        results += train_group(part, round_number=1, steps=CONFIG.local_steps)
    return results


def trained(together, *group):
    """What training gave, and the tensors then, of each client."""
    group = trainees(*group)
    results = train(group, together)
    return [(*each, adapter_tensors(g.model)) for g, each in zip(group, results, strict=True)]


def assert_trained_alike(family, experts, config=CONFIG, steps_done=(0, 0, 0)):
    alone, fused = (trained(x, family, experts, config, steps_done) for x in (False, True))
    for (moments, stats, tensors), (their_moments, their_stats, ours) in zip(
        alone, fused, strict=True
    ):
        assert stats.losses == pytest.approx(their_stats.losses, rel=1e-5)
        assert stats.balances == pytest.approx(their_stats.balances, rel=1e-5)
        assert stats.router_steps == their_stats.router_steps
        assert moments.keys() == their_moments.keys()
        # of first order a step follows the difference of two gradients, divided by 2 nu
        atol = 1e-5 if config.router.grad == "alternating" else 5e-5
        for name, tensor in tensors.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=atol, msg=name)
    return alone


@pytest.mark.slow
@pytest.mark.parametrize("experts, top_k", [(1, 1), (2, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3", "gpt_neox"])
def test_clients_in_one_pass_train_as_each_alone(family, experts, top_k):
    experts = comigs.ExpertsConfig(specialists=experts - 1, top_k=top_k, rank=4)
    assert_trained_alike(family, experts)


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_one_pass_gives_every_client_of_every_family_its_own_logits(family):
    group = trainees(family, comigs.ExpertsConfig(rank=4))
    train(group, together=False)
    ids = torch.randint(64, (N, 2, 8), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        joined = join([each.model for each in group])(input_ids=ids.flatten(0, 1)).logits
        own = [each.model(input_ids=i).logits for each, i in zip(group, ids, strict=True)]
    assert not torch.allclose(own[0], group[1].model(input_ids=ids[0]).logits, rtol=1e-3)
    torch.testing.assert_close(joined, torch.cat(own), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch_size": 2},
        {"method": "pfedmoe"},
        {"method": "fdlora"},
        {"router": RouterConfig(every=2, grad="first_order", steps=1)},
        {"router": RouterConfig(trainable=False)},
        {"train": TrainConfig(checkpointing=True)},
        {"train": TrainConfig(layers=1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("specialists", [1, 3])
def test_every_way_to_train_is_the_same_in_one_pass(change, specialists):
    experts = comigs.ExpertsConfig(specialists=specialists, top_k=2, rank=4)
    experts = replace(experts, routed=change.get("method") != "fdlora")
    assert_trained_alike("gpt2", experts, replace(CONFIG, **change))


def test_router_steps_fall_due_for_each_client_on_its_own():
    experts = comigs.ExpertsConfig(specialists=1, rank=4)
    results = assert_trained_alike("gpt2", experts, steps_done=(0, 1, 2))
    assert [stats.router_steps for _, stats, _ in results] == [2, 2, 4]


def test_dropout_is_refused():
    group = trainees("gpt2", comigs.ExpertsConfig(rank=4, dropout=0.1))
    with pytest.raises(comigs.BadInput, match=r"experts\.dropout"):
        train(group, together=True)


def test_one_client_that_diverges_leaves_the_others_tensors_untouched_by_it():
    """Its NaN stays in its own products: no other client's gradient holds one."""
    group = trainees("gpt2", comigs.ExpertsConfig(rank=4))
    with torch.no_grad():
        next(p for n, p in group[1].model.named_parameters() if ".lora_A." in n).fill_(torch.nan)
    with pytest.raises(comigs.ComigsError, match=r"train\.lr"):
        train(group, together=True)
    for each, healthy in zip(group, (True, False, True), strict=True):
        grads = [p.grad for p in each.model.parameters() if p.grad is not None]
        assert grads and all(torch.isfinite(g).all() for g in grads) == healthy


def even(tree, fuse=2, **more):
    """Three clients: two of one shape and one of another."""
    experts = {"specialists": [1, 2, 1], "rank": 2}
    return tree | {"experts": experts, "engine": {"fuse": fuse}} | more


def tensors(folder):
    found = sorted(folder.glob("**/round_*/tensors.safetensors"))
    return {str(path.relative_to(folder)): load_file(path) for path in found}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["comigs", "flora", "hetlora", "pcl"])
def test_a_run_of_fused_clients_is_the_run_of_single_ones(tree, tmp_path, method):
    more = {"method": method}
    if method != "comigs":
        more["experts"] = {"rank": 2}
    fused = comigs.run(even(tree, **more), out=tmp_path / "fused").folder
    single = comigs.run(even(tree, 1, **more), out=tmp_path / "single").folder
    ours, theirs = tensors(fused), tensors(single)
    assert ours.keys() == theirs.keys() and ours
    for path in ours:
        for name, tensor in theirs[path].items():
            torch.testing.assert_close(ours[path][name], tensor, rtol=1e-5, atol=1e-5)
    for one, two in zip(events(fused, "final"), events(single, "final"), strict=True):
        assert one["after"] == pytest.approx(two["after"], rel=1e-5)


@pytest.fixture
def passes(monkeypatch):
    """How many clients each call of `train_group` trained."""
    import comigs.local.round

    sizes, train = [], comigs.local.round.train_group

    def counted(group, *rest, **more):
        sizes.append(len(group))
        return train(group, *rest, **more)

    monkeypatch.setattr(comigs.local.round, "train_group", counted)
    return sizes


def test_clients_of_one_shape_share_their_passes(tree, tmp_path, passes):
    comigs.run(even(tree), out=tmp_path)
    assert passes == [2, 1] * 3  # ana and cy together, bo alone


def test_no_more_clients_than_asked_for_share_a_pass(tree, tmp_path, passes):
    comigs.run(even(tree, experts={"rank": 2}), out=tmp_path)
    assert passes == [2, 1] * 3


def test_a_client_that_fails_in_a_group_fails_alone(tree, tmp_path, monkeypatch, caplog):
    """Client 1 cannot train in round 2, together with others or alone."""
    import comigs.local.group
    import comigs.local.round

    begin = comigs.local.round.begin_round

    def poisoned(order, slot=0):
        begun = begin(order, slot)
        if (order.client.number, order.round) == (1, 2):
            with torch.no_grad():
                next(p for n, p in begun.trainee.model.named_parameters() if ".lora_A." in n).fill_(
                    1e38
                )
        return begun

    monkeypatch.setattr(comigs.local.round, "begin_round", poisoned)
    monkeypatch.setattr(comigs.local.group, "begin_round", poisoned)
    config = even(tree, 3, experts={"rank": 2})
    with caplog.at_level(logging.WARNING, "comigs"):
        folder = comigs.run(config, out=tmp_path / "fused").folder
    assert [(e["round"], e["client"]) for e in events(folder, "failure")] == [(2, 1)]
    assert "train.lr" in events(folder, "failure")[0]["reason"]
    assert "clients 0, 1, 2 could not train in one pass" in caplog.text
    assert [e["clients"] for e in events(folder, "round")] == [3, 2, 3]


def test_a_damaged_state_costs_only_its_own_client(tree, tmp_path, passes, monkeypatch):
    import comigs.local.round

    read, seen = comigs.local.round.read_state, []

    def damaged(root, number):
        if (root.name, number) == ("0", 1) and not seen:
            seen.append(number)
            raise comigs.ComigsError("damaged")
        return read(root, number)

    monkeypatch.setattr(comigs.local.round, "read_state", damaged)
    folder = comigs.run(even(tree, 3, experts={"rank": 2}, rounds=2), out=tmp_path).folder
    assert [(e["round"], e["client"]) for e in events(folder, "failure")] == [(2, 0)]
    assert passes == [3, 2]


def test_a_resumed_run_of_fused_clients_is_the_uninterrupted_one(tree, tmp_path):
    config = even(tree, 3, experts={"rank": 2}, participation=0.7, rounds=3)
    whole, resumed = run_and_resumed(config, tmp_path, after=1)
    assert_same_numbers(resumed, whole)


def test_fusing_belongs_to_the_identity_and_one_is_as_before():
    for fuse in (1, "auto"):
        assert config_hash(load_config()) == config_hash(load_config(None, [f"engine.fuse={fuse}"]))
    assert config_hash(load_config()) != config_hash(load_config(None, ["engine.fuse=2"]))
    assert [key for key in identity(RunConfig()) if key.startswith("engine.")] == ["engine.fuse"]


@pytest.mark.parametrize(
    "settings, message",
    [
        (["engine.fuse=0"], "engine.fuse"),
        (["engine.fuse=some"], "engine.fuse is 'some'; expected .*auto"),
        (["engine.fuse=2", "engine.name=flower"], "engine.fuse is 2; .*inline or ray"),
        (["engine.fuse=2", "experts.dropout=0.1"], r"engine.fuse is 2; .*experts\.dropout"),
        (["engine.fuse=2", "train.loss=chunked"], r"engine.fuse is 2; .*train\.loss"),
    ],
)
def test_what_cannot_be_fused_is_refused(settings, message):
    with pytest.raises(comigs.BadInput, match=message):
        load_config(None, settings)


def test_frozen_weights_are_not_copied():
    group = trainees("gpt2", comigs.ExpertsConfig(rank=4))
    joined = join([each.model for each in group])
    mine = {t.data_ptr() for t in group[0].model.parameters()}
    assert isinstance(joined, tf.GPT2LMHeadModel)
    assert {t.data_ptr() for t in joined.parameters()} <= mine
