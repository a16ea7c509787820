"""Edges between devices and server: means of means, and what travels on each link."""

import pytest
import torch

import comigs
from comigs.app.run import plan
from comigs.config.load import config_hash, load_config
from comigs.errors import BadInput
from comigs.federation.edges import at_edges_once, edges_of
from comigs.federation.run import resolve
from comigs.store.state import read_state
from comigs_server.combine.edges import means_at_edges
from comigs_server.fleet.update import Update
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
ALIKE = {"specialists": 1, "rank": 2}


@pytest.fixture(scope="module")
def two(tree):
    """The run's three clients behind two edges: clients 0 and 1, and client 2."""
    return tree | {"experts": ALIKE, "server": {"tiers": 2}}


@pytest.fixture(scope="module")
def folder(two, tmp_path_factory):
    return comigs.run(two, out=tmp_path_factory.mktemp("edges")).folder


def test_neighbours_share_an_edge(two):
    run = resolve(load_config(two))
    assert edges_of(run, [2, 0, 1]) == {0: [0, 1], 1: [2]}
    assert edges_of(run, [2]) == {1: [2]}


def test_an_edge_sends_the_weighted_mean_and_the_weight_of_all(two):
    run = resolve(load_config(two))
    weights = {0: 1.0, 1: 3.0, 2: 2.0}
    values = {0: 8.0, 1: 4.0, 2: 1.0}
    updates = [Update(i, {"a": torch.tensor([values[i]])}, weights[i]) for i in (0, 1, 2)]
    sent = means_at_edges(run, updates)
    assert [(u.client, u.weight, u.tensors["a"].item()) for u in sent] == [(0, 4, 5), (1, 2, 1)]


def test_an_edge_fetches_once_what_its_clients_have_in_common(two):
    run = resolve(load_config(two))
    assert at_edges_once(run, {0: 100, 1: 100, 2: 100}) == 200
    assert at_edges_once(run, {0: 100, 1: 40}) == 140


def test_the_mean_of_means_is_the_mean_to_rounding(two, folder, tmp_path):
    """After one round, while differences in the last digits have not grown."""
    flat = comigs.run(two | {"server": {}}, out=tmp_path).folder
    one, other = (read_state(f / "server", 1)[0]["shared"] for f in (flat, folder))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-8)


def test_each_link_is_counted_and_the_plan_knows_it(two, folder):
    rounds = events(folder, "round")
    shared = read_state(folder / "server", 3)[0]["shared"]
    size = 4 * sum(tensor.numel() for tensor in shared.values())
    assert [e["edge_up"] for e in rounds] == [2 * size] * 3
    assert [e["edge_down"] for e in rounds] == [0, 2 * size, 2 * size]
    assert [e["bytes_up"] for e in rounds] == [3 * size] * 3
    _, told = plan(two)
    assert (told.edge_up, told.edge_down) == (6 * size, 4 * size)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"method": "flora"}, "method 'flora' combines"),
        ({"method": "comigs-adaptive"}, "method 'comigs-adaptive' combines"),
        ({"method": "local"}, "method 'local' does not"),
        ({"method": "comigs-2g", "experts": {"specialists": [0, 1, 1], "rank": 2}}, "differ in"),
        ({"server": {"tiers": 2, "strategy": "Krum"}}, "server.strategy is 'Krum'"),
        ({"server": {"tiers": 4}}, "server.tiers is 4; there are 3 clients"),
        ({"privacy": {"secure": "secagg"}}, "privacy.secure none; it is 'secagg'"),
        ({"engine": "flower", "clients": 3}, "server.tiers is 2; edges are simulated"),
    ],
)
def test_what_edges_cannot_do_is_refused(two, tmp_path, more, words):
    with pytest.raises(BadInput, match=words):
        comigs.run(two | more, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_edges_a_run_keeps_its_name(tree, two):
    spelt = tree | {"server": {"tiers": None}}
    assert config_hash(load_config(spelt)) == config_hash(load_config(tree))
    assert config_hash(load_config(two)) != config_hash(load_config(two | {"server": {}}))
