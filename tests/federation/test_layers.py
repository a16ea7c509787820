"""LISA: a few layers train, and nothing of the others moves, travels or counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.config.load import config_hash, load_config
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.errors import BadInput
from comigs.federation.layers import drawn, layer_of, of_round
from comigs.federation.run import resolve
from comigs.mixture.adapters import start_tensor
from comigs.store.state import read_state
from comigs_server.checks.run import check
from tests.costs.test_traffic import assert_bytes
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)


def config_of(layers, seed=42):
    return RunConfig(train=TrainConfig(layers=layers), seed=seed)


@given(st.integers(1, 9), st.integers(0, 5), st.integers(0, 99), st.integers(1, 99))
def test_as_many_layers_are_drawn_as_wanted(layers, more, client, number):
    there = range(layers + more)
    chosen = drawn(config_of(layers), client, number, there)
    assert len(chosen) == layers and chosen <= set(there)
    assert chosen == drawn(config_of(layers), client, number, list(reversed(there)))


def test_every_layer_is_drawn_as_often_by_every_client_in_its_own_way():
    rounds = [
        [drawn(config_of(2), client, n, range(6)) for n in range(1, 301)] for client in (0, 1)
    ]
    for chosen in rounds:
        assert all(70 < sum(layer in each for each in chosen) < 130 for layer in range(6))
    agree = sum(one == two for one, two in zip(*rounds, strict=True))
    assert 5 < agree < 40  # of 15 pairs one: 20
    assert rounds[0] != [drawn(config_of(2, seed=1), 0, n, range(6)) for n in range(1, 301)]


def test_what_there_is_of_a_round():
    names = [
        "transformer.h.0.mlp.c_fc.lora_A.generalist_0.weight",
        "model.layers.11.mlp.router.weight",
    ]
    assert list(map(layer_of, names)) == [0, 11]
    of = dict(zip(names, "ab", strict=True))
    assert of_round(config_of(None), 0, 1, of) == of_round(config_of(2), 0, 1, of) == of
    assert len(of_round(config_of(1), 0, 1, of)) == 1
    assert of_round(config_of(1), 0, 1, {}) == {}
    with pytest.raises(BadInput, match=r"train.layers is 3; the model has 2"):
        of_round(config_of(3), 0, 1, of)


@pytest.fixture(scope="module")
def lisa(tree):
    """Two of three clients train one of the model's two layers in each round."""
    return tree | {"train": {"layers": 1}, "participation": 0.6}


@pytest.fixture(scope="module")
def both(lisa, tmp_path_factory):
    return run_and_resumed(lisa, tmp_path_factory.mktemp("lisa"))


@pytest.mark.slow
def test_a_run_cut_off_between_rounds_ends_bit_identical(both):
    assert_same_numbers(*both)


@pytest.mark.slow
def test_bytes_are_those_of_the_plan(both):
    assert_bytes(both[0])


@pytest.mark.slow
def test_who_trained_a_layer_makes_its_mean_and_nothing_else_moves(both):
    folder = both[0]
    config, shared, seen = resolve(load_config(folder / "config.yaml")).config, {}, set()
    for number in range(1, 4):
        sent = {}
        for event in events(folder, "client"):
            if event["round"] != number:
                continue
            client, root = event["client"], folder / "clients" / str(event["client"])
            state = read_state(root, number)[0]
            for name, tensor in state["tensors"].items():
                if ".generalist_" not in name:
                    continue
                start = start_tensor(name, tuple(tensor.shape), config.seed)
                began = shared.get(name, start)
                if layer_of(name) in drawn(config, client, number, range(2)):
                    sent.setdefault(name, []).append(tensor.double())
                    assert "lora_A" in name or not torch.equal(tensor, began)
                else:
                    seen.add((client, layer_of(name)))
                    if number > 1:
                        assert torch.equal(tensor, began)
        shared |= {n: torch.stack(each).mean(0).float() for n, each in sent.items()}
        kept = read_state(folder / "server", number)[0]["shared"]
        assert kept.keys() == shared.keys()
        for name, tensor in kept.items():
            torch.testing.assert_close(tensor, shared[name], rtol=0, atol=1e-9)
    assert len(seen) > 3


@pytest.mark.slow
def test_moments_of_a_layer_that_rests_stay(both):
    """A client's second moments are those of its earlier rounds, and count only steps there."""
    config = load_config(both[0] / "config.yaml")
    for client in range(3):
        root, steps = both[0] / "clients" / str(client), {0: 0, 1: 0}
        for event in events(both[0], "client"):
            if event["client"] == client:
                [layer] = drawn(config, client, number := event["round"], range(2))
                steps[layer] += 2
        moments = read_state(root, number)[0]["optimizer"]
        for name, value in moments.items():
            if name.startswith("step/") and ".lora_" in name:
                assert value == steps[layer_of(name)]


@pytest.mark.slow
def test_all_layers_are_as_if_none_were_drawn(finished, tree, tmp_path):
    every = comigs.run(tree | {"train": {"layers": 2}}, out=tmp_path).folder
    assert_same_numbers(every, finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"payload": {"codec": "int4-topk", "down": "int8"}},
        {"method": "apfl"},
    ],
    ids=str,
)
def test_it_goes_with_codecs_and_methods_that_average(settings, lisa, tmp_path):
    tree = lisa | settings | {"experts": {"specialists": 1, "rank": 2}, "engine": {"fuse": 3}}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)
    assert_bytes(whole)


def test_off_it_enters_no_name():
    assert config_hash(load_config({"train": {"layers": None}})) == config_hash(load_config({}))
    assert config_hash(load_config({"train": {"layers": 1}})) != config_hash(load_config({}))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"train": {"layers": 3}}, "train.layers is 3; the model has 2"),
        ({"method": "flora"}, "averages each layer over those who trained it; method 'flora'"),
        ({"server": {"strategy": "FedAdam"}}, "needs server.strategy FedAvg"),
        ({"train": {"layers": 1, "swa": 2}}, "needs train.swa null; it is 2"),
        ({"server": {"tiers": 2}}, "needs server.tiers null; it is 2"),
        ({"privacy": {"secure": "secagg"}}, "needs privacy.secure none; it is 'secagg'"),
    ],
)
def test_what_needs_the_same_layers_of_all_is_refused(settings, reason, tree):
    tree = tree | {"train": {"layers": 1}, "experts": {"specialists": 1}} | settings
    with pytest.raises(BadInput, match=reason):
        check(resolve(load_config(tree)))
