"""FlexLoRA's clients: the SVD changes the basis, so that Adam's moments begin anew."""

import pytest
import torch

from comigs.config.load import load_config
from comigs.local.round import Order, begin_round, train_round
from comigs.mixture.adapters import adapter_parameters
from tests.helpers import client_of

pytest_plugins = ("tests.fixtures",)


@pytest.mark.parametrize(("method", "kept"), [("flexlora", False), ("fedavg", True)])
def test_moments_begin_anew_where_the_server_changes_the_basis(tree, tmp_path, method, kept):
    client = client_of(load_config(tree | {"method": method, "experts": {"specialists": 0}}))
    sent, _ = train_round(Order(client, 1, 0, {}, tmp_path))
    begun = begin_round(Order(client, 2, 1, sent, tmp_path))
    assert bool(begun.trainee.moments) is kept
    named = adapter_parameters(begun.trainee.model)
    assert all(torch.equal(named[name], tensor) for name, tensor in sent.items())


def test_moments_stay_where_nothing_came(tree, tmp_path):
    client = client_of(load_config(tree | {"method": "flexlora", "experts": {"specialists": 0}}))
    train_round(Order(client, 1, 0, {}, tmp_path))
    assert begin_round(Order(client, 2, 1, {}, tmp_path)).trainee.moments
