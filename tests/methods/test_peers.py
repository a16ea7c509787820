"""What clients tell of their peers: a slope that differences confirm, told only where asked."""

import pytest
import torch

import comigs
from comigs.config.load import load_config
from comigs.data.tokens import random_windows
from comigs.errors import BadInput
from comigs.evaluation.metrics.peers import influence
from comigs.evaluation.perplexity import token_loss
from comigs.federation.clients import data_of, model_of
from comigs.federation.run import resolve
from comigs.methods.base import generalists
from comigs.methods.cobo import START
from comigs.mixture.adapters import adapter_tensors, init_adapters, load_adapter_tensors
from comigs.seeds import generator
from comigs_server.checks.run import check
from tests.helpers import client_of, events, numbers
from tests.methods.stepping import noisy

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(scope="module")
def even(tree):
    return tree | {"experts": {"specialists": 1, "rank": 2}}


def test_influence_is_the_slope_of_the_loss_towards_a_peer(even):
    client = client_of(load_config(even), 1)
    model, valid = model_of(client), data_of(client).valid
    init_adapters(model, 0, 1)
    own = noisy({n: t for n, t in adapter_tensors(model).items() if generalists(n)}, 1, 0.05)
    load_adapter_tensors(model, own)
    peers = {j: noisy(own, j, 0.2) for j in (0, 2)} | {1: own}
    found = influence(model, valid, client.config, peers, 1, 4)
    assert list(found) == ["0", "2"] and len(set(found.values())) == 2
    rng = generator(client.config.seed, 1, 4, "influence batch")
    windows = random_windows(valid, client.config.batch_size, client.config.data.seq_len, rng)

    def loss(peer, share):
        there = {n: torch.lerp(t, peers[peer][n], share) for n, t in own.items()}
        load_adapter_tensors(model, there)
        with torch.no_grad():
            return float(token_loss(model, windows, "mean"))

    for peer, slope in found.items():
        measured = (loss(int(peer), 0.005) - loss(int(peer), -0.005)) / 0.01
        assert slope == pytest.approx(measured, rel=0.02, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parts"), [("cobo", ["graph", "influence"]), ("pcl", ["influence"])]
)
def test_they_are_told_where_asked_for_and_change_no_number(method, parts, even, tmp_path):
    tree = even | {"method": method}
    plain = comigs.run(tree, out=tmp_path / "plain").folder
    assert not any(event.get("metrics") for event in events(plain, "client"))
    asked = comigs.run(tree | {"log": tree["log"] | {"metrics": ["peers"]}}, out=tmp_path / "asked")
    tensors, finals, losses = numbers(plain)
    same_tensors, same_finals, same_losses = numbers(asked.folder)
    assert (finals, losses) == (same_finals, same_losses)
    assert tensors == same_tensors
    for event in [*events(asked.folder, "client"), *events(asked.folder, "final")]:
        others = {0, 1, 2} - {event["client"]} if event.get("round") != 1 else ()
        wanted = {f"peers/{part}/{j}" for part in parts for j in others}
        assert set(event.get("metrics") or ()) == wanted
    if method == "cobo":
        told = {e["client"]: e["metrics"] for e in events(asked.folder, "final")}
        graph = {(i, j): told[i][f"peers/graph/{j}"] for i in told for j in told if i != j}
        assert all(graph[i, j] == graph[j, i] for i, j in graph)
        assert set(graph.values()) != {START}


def test_a_method_without_peers_is_refused(tree):
    tree = tree | {"log": tree["log"] | {"metrics": ["peers"]}}
    with pytest.raises(
        BadInput, match=r"log.metrics has 'peers'.*: cobo or pcl; method is 'comigs"
    ):
        check(resolve(load_config(tree)))
