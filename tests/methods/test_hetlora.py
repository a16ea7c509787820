"""HetLoRA's self-pruning."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import comigs
from comigs.adapters import adapter_tensors
from comigs.methods.hetlora import METHOD, PENALTY, penalty, prune, tail_norm
from comigs.ranks import rank_of
from tests.helpers import events

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
    penalty(values).backward()
    assert penalty(values).item() == pytest.approx(PENALTY * tail_norm(pair(8, 0.5), 8), rel=1e-4)
    assert values[A].grad[:-1].abs().max() == 0 < values[A].grad[-1].abs().min()
    start = {A: nn.Parameter(torch.randn(8, 6)), B: nn.Parameter(torch.zeros(4, 8))}
    penalty(start).backward()
    assert all(torch.isfinite(p.grad).all() for p in start.values())


def test_a_client_that_prunes_sends_less_and_goes_on(tree, tmp_path, monkeypatch):
    eager = replace(METHOD, prune=lambda received, trained: 3 if received else 4)
    monkeypatch.setattr("comigs.local.find_method", lambda name: eager)
    config = tree | {"method": "hetlora", "experts": {"specialists": 0, "rank": 4}}
    result = comigs.run(config, out=tmp_path)
    sent = {e["round"]: e["bytes_up"] for e in events(tmp_path, "client") if e["client"] == 0}
    assert sent[2] == sent[3] == sent[1] * 3 / 4
    assert not events(tmp_path, "failure")
    assert rank_of(adapter_tensors(result.client(0).model())) == 3
