"""FlexLoRA's clients: the SVD changes the basis, so that Adam's moments begin anew."""

import pytest
import torch

from comigs.config.load import load_config
from comigs.local.round import Order, begin_round, train_round
from comigs.mixture.adapters import adapter_parameters

pytest_plugins = ("tests.fixtures",)


@pytest.mark.parametrize(("method", "kept"), [("flexlora", False), ("fedavg", True)])
def test_moments_begin_anew_where_the_server_changes_the_basis(tree, tmp_path, method, kept):
    config = load_config(tree | {"method": method, "experts": {"specialists": 0}}).for_client(0)
    sent, _ = train_round(config, Order(0, 1, 0, {}, tmp_path))
    begun = begin_round(config, Order(0, 2, 1, sent, tmp_path))
    assert bool(begun.trainee.moments) is kept
    named = adapter_parameters(begun.trainee.model)
    assert all(torch.equal(named[name], tensor) for name, tensor in sent.items())


def test_moments_stay_where_nothing_came(tree, tmp_path):
    config = load_config(tree | {"method": "flexlora", "experts": {"specialists": 0}})
    train_round(config, Order(0, 1, 0, {}, tmp_path))
    assert begin_round(config.for_client(0), Order(0, 2, 1, {}, tmp_path)).trainee.moments
