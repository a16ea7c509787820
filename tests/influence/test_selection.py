"""Training on the best share of a client's blocks: which they are, when, and what is told of it."""

import math

import pytest
import torch
from flwr.common.serde import message_to_proto

import comigs
from comigs.config.load import config_hash, load_config, to_dict
from comigs.data.windows import packed
from comigs.errors import BadInput
from comigs.evaluation.gradient import gradients_of
from comigs.evaluation.perplexity import token_loss
from comigs.federation.clients import data_of, model_of
from comigs.influence.blocks import BlockGradients, blocks_of, influences
from comigs.influence.rules import tracin
from comigs.influence.selection import best
from comigs.mixture.adapters import adapter_parameters, init_adapters
from comigs.store.state import read_state
from comigs_server.grids.inline import InlineGrid
from tests.helpers import assert_same_numbers, client_of, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)
LENGTH = 16


@pytest.fixture
def little(tree):
    """`tree` with 12 blocks to train on and 3 to validate on."""
    data = tree["data"] | {"train_tokens": 193, "valid_tokens": 49, "test_tokens": 49}
    return tree | {"data": data}


def selecting(tree, **select):
    return tree | {"data": tree["data"] | {"select": {"by": "hyperinf", **select}}}


def test_the_lowest_scores_are_kept_in_their_order_and_of_equal_ones_the_first():
    scores = torch.tensor([3.0, -1.0, 2.0, 2.0, 2.0])
    assert best(scores, 0.5).tolist() == [1, 2, 3]
    assert best(scores, 0.01).tolist() == [1]
    assert best(scores, 1).tolist() == [0, 1, 2, 3, 4]


def test_blocks_are_sequences_side_by_side_or_rows_of_chats():
    stream = torch.arange(50)
    assert [(int(b[0]), int(b[-1])) for b in blocks_of(stream, LENGTH)] == [
        (0, 16), (16, 32), (32, 48),
    ]  # fmt: skip
    opened = torch.cat([torch.tensor([-1 - 7]), stream])  # every window begins with token 7
    assert [b[:2].tolist() for b in blocks_of(opened, LENGTH)] == [[7, 0], [7, 16], [7, 32]]
    rows = packed([torch.arange(5)], LENGTH + 1)
    assert torch.equal(blocks_of(rows, LENGTH), rows)


@pytest.fixture
def small(little):
    """A client of the run, its model a little trained, and its blocks."""
    client = client_of(load_config(little), 1)
    model = model_of(client)
    init_adapters(model, 1, 1)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if ".lora_B." in name:
                parameter.fill_(0.02)
    return client, model, blocks_of(data_of(client).train, LENGTH)


def test_the_gradient_of_text_is_the_same_in_micro_batches_and_leaves_the_model_alone(small, tree):
    client, model, blocks = small
    before = {n: p.detach().clone() for n, p in adapter_parameters(model).items()}
    with gradients_of(model, client.config, lambda name: "lora_B" in name) as gradient:
        found = gradient(blocks[:5])
    for name, parameter in adapter_parameters(model).items():
        assert torch.equal(parameter, before[name]) and not parameter.requires_grad
    wanted = {n: p for n, p in adapter_parameters(model).items() if "lora_B" in n}
    assert set(found) == set(wanted)
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    whole = torch.autograd.grad(token_loss(model, blocks[:5]), list(wanted.values()))
    for name, one in zip(wanted, whole, strict=True):
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6)
    model.requires_grad_(False)


def test_a_score_is_how_fast_a_step_on_the_block_lowers_validation_loss(small):
    """TracIN's, by a step of plain descent on one block."""
    client, model, blocks = small
    train, valid = blocks[:2], blocks[2:6]
    scores = influences(client, model, tracin, train, valid)
    rate = 1e-2
    for block, score in zip(train, scores, strict=True):
        [found] = BlockGradients(client, model, block[None])
        named = adapter_parameters(model)
        with torch.no_grad():
            losses = []
            for sign in (-1, 1, -1):  # forth, and back again
                for name, step in found.items():
                    named[name].add_(step, alpha=sign * rate)
                losses.append(float(token_loss(model, valid).double()))
            for name, step in found.items():
                named[name].add_(step, alpha=rate)
        assert losses[0] - losses[1] == pytest.approx(rate * float(score), rel=0.05)


def chosen(folder, number):
    """By client, the blocks that its state of a round holds."""
    states = {i: read_state(folder / "clients" / str(i), number)[0] for i in range(3)}
    return {i: s["chosen"]["blocks"].tolist() for i, s in states.items() if "chosen" in s}


def test_a_choice_is_made_once_and_a_resumed_run_goes_on_with_it(little, tmp_path):
    tree = selecting(little, keep=0.4, after=2)  # a round has 2 steps
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert chosen(whole, 1) == {}
    assert chosen(whole, 2) == chosen(whole, 3)
    assert {i: len(blocks) for i, blocks in chosen(whole, 2).items()} == dict.fromkeys(range(3), 5)
    assert_same_numbers(whole, resumed)


def test_clients_in_one_pass_choose_as_they_do_alone(little, tmp_path):
    tree = selecting(little | {"experts": {"rank": 2}, "rounds": 1}, keep=0.4)
    alone = comigs.run(tree | {"engine": {"fuse": 1}}, out=tmp_path / "alone").folder
    fused = comigs.run(tree | {"engine": {"fuse": 3}}, out=tmp_path / "fused").folder
    assert chosen(alone, 1) == chosen(fused, 1) != {}


def test_chosen_blocks_alone_are_trained_on_and_nothing_of_the_choice_leaves_the_device(
    little, tmp_path, monkeypatch
):
    """Replies have the same fields, and say as many examples, as without one; no number of it."""
    told, pull = [], InlineGrid.pull_messages
    seen, draw = [], comigs.training.trainee.random_windows
    monkeypatch.setattr(
        "comigs.training.trainee.random_windows",
        lambda tokens, *rest: seen.append(tokens) or draw(tokens, *rest),
    )

    def captured(self, ids):
        replies = pull(self, ids)
        told.extend(replies)
        return replies

    monkeypatch.setattr(InlineGrid, "pull_messages", captured)

    def fields(tree, out):
        told.clear()
        folder = comigs.run(tree | {"rounds": 1}, out=tmp_path / out).folder
        shape = [{key: sorted(r) for key, r in reply.content.items()} for reply in told]
        sent = b"".join(message_to_proto(reply).SerializeToString() for reply in told)
        return shape, [e["num-examples"] for e in events(folder, "client")], sent, folder

    before, counts, _, _ = fields(little, "all")
    after, same, sent, folder = fields(selecting(little, keep=0.4), "some")
    assert (before, counts) == (after, same)
    for i, kept in chosen(folder, 1).items():
        assert torch.tensor(kept).numpy().tobytes() not in sent and len(kept) == math.ceil(0.4 * 12)
        blocks = blocks_of(data_of(client_of(load_config(little), i)).train, LENGTH)[kept]
        assert sum(torch.equal(tokens, blocks) for tokens in seen) == 2  # its two steps


def test_settings_of_a_choice_are_checked_and_change_no_hash_while_it_is_off():
    config = load_config(None)
    assert config_hash(load_config(None, ["data.select.keep=0.5"])) == config_hash(config)
    one = load_config(None, ["data.select=hyperinf"])
    assert one.data.select.by == "hyperinf" and config_hash(one) != config_hash(config)
    assert load_config({"data": {"select": "hyperinf"}}).data.select == one.data.select
    assert to_dict(config)["data"]["select"] == {"by": None, "keep": 0.7, "after": 0}
    with pytest.raises(BadInput, match=r"data.select.keep is 0.*in \(0, 1\]"):
        load_config(None, ["data.select.keep=0"])
    with pytest.raises(BadInput, match=r"data\.select\.after is -1"):
        load_config(None, ["data.select.after=-1"])
