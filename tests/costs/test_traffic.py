"""Predicted bytes against what real runs count; equal clients: tests/methods/test_methods.py."""

import pytest

import comigs
from comigs.config.load import read_config
from comigs.costs.traffic import traffic
from comigs.federation.run import resolve
from comigs.methods import all_methods
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow

UNEQUAL = [
    "comigs",
    "comigs-2g",
    "fedavg",
    "hetlora",
    "flexlora",
    "flora",
    "fedsa-lora",
    "ffa-lora",
]


def of_clients(folder):
    """Of each client: what is predicted, its events of training, and its last one if it has any."""
    predicted = traffic(resolve(read_config(folder))).clients
    for client in range(len(predicted)):
        final = next((e for e in events(folder, "final") if e["client"] == client), None)
        trained = [e for e in events(folder, "client") if e["client"] == client]
        yield predicted[client], trained, final


def assert_exact(tree, folder, **settings):
    assert_bytes(comigs.run(tree | settings, out=folder).folder)


def assert_bytes(folder):
    """A finished run has sent what is predicted."""
    method = read_config(folder).method
    for line, trained, final in of_clients(folder):
        if final is None:
            assert line.down[-1] == 0
            continue
        if method == "comigs-adaptive":  # who rests sends less
            assert not line.exact
            assert final["bytes_up"] <= sum(line.up) and final["bytes_down"] <= sum(line.down)
            continue
        assert line.exact
        for event in trained:
            assert line.up[event["round"] - 1] == event["bytes_up"]
            assert line.down[event["round"] - 1] == event["bytes_down"]
        assert sum(line.up) == final["bytes_up"]
        assert sum(line.down) == final["bytes_down"]


@pytest.fixture()
def equal(tree):
    return tree | {"experts": {"specialists": 1, "rank": 2}}


@pytest.mark.parametrize("method", [name for name, m in all_methods().items() if not m.trains])
def test_bytes_of_a_method_that_does_not_train(method, equal, tmp_path):
    assert_exact(equal, tmp_path, method=method)


@pytest.mark.parametrize("method", [m for m in UNEQUAL if m != "hetlora"])
def test_bytes_of_unequal_clients_of_which_some_are_away(method, tree, tmp_path):
    experts = {"specialists": [0, 1, 3], "rank": 2}
    if method in ("flexlora", "flora"):
        experts["rank"] = [1, 2, 4]
    assert_exact(tree, tmp_path, method=method, participation=0.6, rounds=4, experts=experts)


@pytest.mark.parametrize("method", ["pcl", "cobo", "fedex-lora"])
def test_bytes_of_equal_clients_of_which_some_are_away(method, equal, tmp_path):
    assert_exact(equal, tmp_path, method=method, participation=0.6, rounds=4)


def test_stacks_stop_growing_at_the_size_of_the_weights(equal, tmp_path):
    experts = {"specialists": 0, "rank": 7}
    assert_exact(equal, tmp_path, method="flora", participation=0.6, rounds=4, experts=experts)


@pytest.mark.parametrize("strategy", ["FedProx", "FedAdam", "FedYogi", "FedAvgM", "FedMedian"])
def test_bytes_of_every_kind_of_strategy(strategy, equal, tmp_path):
    assert_exact(equal, tmp_path, server={"strategy": strategy}, rounds=2)


@pytest.mark.parametrize("method", ["comigs", "flora", "pcl", "cobo"])
def test_bytes_with_lost_and_absent_devices_and_a_smaller_test(method, equal, tmp_path):
    shaky = {"like": "board", "dropout": 0.4, "trace": "110"}
    devices = {"define": {"shaky": shaky}, "profiles": {"shaky": 2, "laptop": 1}}
    data = equal["data"] | {"test_clients": 2}
    more = {"devices": devices, "data": data, "rounds": 5}
    assert_exact(equal, tmp_path, method=method, **more)
    assert events(tmp_path, "dropped"), "nothing was lost"


def test_a_method_that_prunes_sends_at_most_what_is_predicted(tree, tmp_path):
    experts = {"specialists": [0, 1, 1], "rank": [1, 2, 4]}
    comigs.run(tree | {"method": "hetlora", "experts": experts}, out=tmp_path)
    for line, trained, final in of_clients(tmp_path):
        assert not line.exact
        assert all(e["bytes_up"] <= line.up[e["round"] - 1] for e in trained)
        assert sum(line.down) == final["bytes_down"]
