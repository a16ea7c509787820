"""HetLoRA's self-pruning."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import comigs
from comigs.config.load import load_config
from comigs.local.round import Order, begin_round, end_round
from comigs.methods.hetlora import METHOD, PENALTY, penalty, prune, tail_norm
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, start_tensor
from comigs.mixture.ranks import pairs, rank_of
from comigs.store.state import read_state
from comigs.training.trainee import LocalStats
from tests.helpers import client_of, events

pytest_plugins = ("tests.fixtures",)

A, B = "up.lora_A.generalist_0.weight", "up.lora_B.generalist_0.weight"


def pair(rank, tail):
    """A and B of ones, the last component scaled by `tail`."""
    a, b = torch.ones(rank, 6), torch.ones(4, rank)
    a[-1] *= tail
    b[:, -1] *= tail
    return {A: a, B: b}


def test_the_rank_is_cut_when_the_tail_is_below_the_servers():
    assert prune(pair(8, 1.0), pair(8, 0.5)) == 7
    assert prune(pair(8, 0.5), pair(8, 1.0)) == 8
    assert prune(pair(8, 1.0), pair(8, 1.0)) == 8


def test_the_servers_tail_is_that_of_the_components_the_client_has():
    """A client that has come down to rank 5 compares component 5 with the server's fifth."""
    received = pair(8, 1.0)
    received[A][4] *= 0.1
    assert prune(received, pair(5, 0.5)) == 5
    received[A][4] *= 100
    assert prune(received, pair(5, 0.5)) == 4


def test_nothing_is_pruned_before_the_first_aggregate_nor_below_rank_one():
    assert prune({}, pair(8, 0.0)) == 8
    assert prune(pair(8, 1.0), pair(1, 0.0)) == 1


def test_the_penalty_is_lambda_times_the_tail_norm_and_finite_at_the_start():
    values = {name: nn.Parameter(t) for name, t in pair(8, 0.5).items()}
    penalty(values, {}).backward()
    assert penalty(values, {}).item() == pytest.approx(
        PENALTY * tail_norm(pair(8, 0.5), 8), rel=1e-4
    )
    assert values[A].grad[:-1].abs().max() == 0 < values[A].grad[-1].abs().min()
    start = {A: nn.Parameter(torch.randn(8, 6)), B: nn.Parameter(torch.zeros(4, 8))}
    penalty(start, {}).backward()
    assert all(torch.isfinite(p.grad).all() for p in start.values())


def test_a_client_that_prunes_sends_less_and_goes_on(tree, tmp_path, monkeypatch):
    eager = replace(METHOD, prune=lambda received, trained: 3 if received else 4)
    monkeypatch.setattr("comigs.federation.run.find_method", lambda name: eager)
    config = tree | {"method": "hetlora", "experts": {"specialists": 0, "rank": 4}}
    result = comigs.run(config, out=tmp_path)
    sent = {e["round"]: e["bytes_up"] for e in events(tmp_path, "client") if e["client"] == 0}
    assert sent[2] == sent[3] == sent[1] * 3 / 4
    assert not events(tmp_path, "failure")
    assert rank_of(adapter_tensors(result.client(0).model())) == 3


def untrained_round(order):
    """A round of a client whose training changes nothing."""
    end_round(begin_round(order), {}, LocalStats([1.0], [0.0]), 0.0)


@pytest.fixture
def client(tree):
    experts = {"specialists": 0, "rank": 8, "dropout": 0.0}
    return client_of(load_config(tree | {"method": "hetlora", "experts": experts}))


def from_the_server(client, rank, tmp_path):
    """What the server keeps after clients of that rank, at the client's configured rank."""
    order = Order(client, 1, 0, {}, tmp_path)
    named = adapter_parameters(begin_round(order).trainee.model)
    rng = torch.Generator().manual_seed(1)
    sent = {name: torch.randn(p.shape, generator=rng) for name, p in named.items()}
    for a, b in pairs(sent):
        sent[a][rank:], sent[b][:, rank:] = 0, 0
    return sent


def test_a_pruned_client_compares_in_its_own_rank_and_scale(client, tmp_path):
    """Configured rank 8, now 4, its tail the server's own: nothing is below."""
    eager = replace(METHOD, prune=lambda received, trained: 4)
    pruned = replace(client, run=replace(client.run, method=eager))
    untrained_round(Order(pruned, 1, 0, {}, tmp_path))
    sent = from_the_server(client, 8, tmp_path)
    untrained_round(Order(client, 2, 1, sent, tmp_path))
    assert read_state(tmp_path, 2)[1]["rank"] == 4


@pytest.mark.parametrize("method", ["hetlora", "flexlora"])
def test_components_that_nobody_has_trained_begin_at_their_start(client, tmp_path, method):
    """After clients of rank 2, rows 2 to 7 of A and columns of B are 0, and would stay so."""
    client = client_of(replace(client.run.config, method=method))
    sent = from_the_server(client, 2, tmp_path)
    begun = begin_round(Order(client, 1, 0, sent, tmp_path))
    tensors = adapter_tensors(begun.trainee.model)
    for a, b in pairs(sent):
        start = start_tensor(a, tuple(tensors[a].shape), client.config.seed)
        assert torch.equal(tensors[a], torch.cat([sent[a][:2], start[2:]]))
        assert torch.equal(tensors[b], sent[b])
