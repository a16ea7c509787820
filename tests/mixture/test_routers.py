"""A kind of router is one file: training, fused clients, saving and costs follow from it."""

import pytest
import torch

import comigs
from comigs.config.load import load_config
from comigs.costs.shapes import adapter_shapes
from comigs.costs.work import parameter_counts
from comigs.federation.clients import model_of
from comigs.mixture import routers
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, init_adapters, is_router
from comigs.mixture.routers import router_shapes
from tests.backbone.test_families import base_of
from tests.helpers import client_of, events
from tests.mixture.test_fused import assert_trained_alike

pytest_plugins = ("tests.fixtures",)

TWO_LAYERS = """
from torch import nn

def two_layers(width, experts):
    hidden = nn.Linear(width, 5, bias=False)
    return nn.Sequential(hidden, nn.GELU(), nn.Linear(5, experts, bias=False))

ROUTER = two_layers
"""


@pytest.fixture
def two_layers(tmp_path, monkeypatch):
    home = tmp_path / "kinds"
    home.mkdir()
    (home / "two_layers.py").write_text(TWO_LAYERS)
    monkeypatch.setattr(routers, "__path__", [*routers.__path__, str(home)])
    yield
    router_shapes.cache_clear()


def test_the_linear_router_is_one_matrix_without_bias():
    assert router_shapes("linear", 32, 3) == {"weight": (3, 32)}


def test_an_unknown_kind_is_refused_with_the_names_there_are():
    match = r"experts\.router is 'nlp'; expected linear or mlp or rescaled or rmoe"
    with pytest.raises(comigs.BadInput, match=match):
        comigs.run("quickstart", ["experts.router=nlp"])
    with pytest.raises(comigs.BadInput, match=match):
        comigs.add_experts(base_of("llama"), comigs.ExpertsConfig(router="nlp"))


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [1, 2])
def test_clients_in_one_pass_train_as_each_alone(top_k, two_layers):
    experts = comigs.ExpertsConfig(specialists=2, top_k=top_k, rank=4, router="two_layers")
    assert_trained_alike("llama", experts)


def test_factors_of_clients_in_one_pass_are_their_own():
    experts = comigs.ExpertsConfig(specialists=2, top_k=2, rank=4, router="rescaled")
    assert_trained_alike("gpt2", experts)


def test_shapes_and_parameters_are_exact(two_layers):
    config = load_config(None, ["experts.router=two_layers", "experts.specialists=2"])
    client = client_of(config)
    named = adapter_parameters(model_of(client))
    assert adapter_shapes(client) == {n: tuple(p.shape) for n, p in named.items()}
    routed = [p for n, p in named.items() if is_router(n)]
    assert parameter_counts(client).router == sum(p.numel() for p in routed)


def test_it_is_saved_with_the_experts_and_comes_back(tmp_path, two_layers):
    model = comigs.add_experts(base_of("llama"), comigs.ExpertsConfig(rank=4, router="two_layers"))
    init_adapters(model, 7, 0)
    comigs.save_experts(model, tmp_path)
    again = adapter_tensors(comigs.load_experts(base_of("llama"), tmp_path))
    for name, tensor in adapter_tensors(model).items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.slow
def test_it_learns_in_a_run_and_never_leaves_the_device(tree, finished, tmp_path, two_layers):
    folder = comigs.run(tree, ["experts.router=two_layers"], out=tmp_path / "run").folder
    told, without = events(folder, "client"), events(finished, "client")
    assert sum(event["router_steps"] for event in told) > 0
    assert [e["bytes_up"] for e in told] == [e["bytes_up"] for e in without]
