"""An aggregator says of itself whether clients' weights matter to it."""

import pytest
import torch

from comigs.aggregation import find_aggregator

A, B = (f"blocks.0.mlp.generalist_0.up.lora_{part}.weight" for part in "AB")


def update(seed):
    rng = torch.Generator().manual_seed(seed)
    return {A: torch.randn(2, 4, generator=rng), B: torch.randn(6, 2, generator=rng)}


@pytest.mark.parametrize(
    "name",
    [
        "mean",
        "activations",
        "fedex",
        "flexlora",
        "flora",
        "hetlora",
        "gather",
        "meetings",
        "others",
    ],
)
def test_weights_change_what_is_made_of_updates_only_where_it_says_so(name):
    aggregator = find_aggregator(name)
    updates = {client: update(client) for client in range(3)}
    one, other = (
        aggregator.combine(updates, weights, lambda rank: 1.0, {})
        for weights in (dict.fromkeys(range(3), 1.0), {0: 1.0, 1: 2.0, 2: 5.0})
    )
    same = all(torch.equal(one[key], other[key]) for key in one | other)
    assert same == (not aggregator.weighs)
