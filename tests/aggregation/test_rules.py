"""The mean aggregator against what a mean must do, and against Flower's FedAvg."""

import flwr.serverapp.strategy.strategy_utils as flower
import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from comigs.aggregation import find_aggregator

values = st.floats(-1e6, 1e6, width=32)
weights_of = st.floats(0.5, 1e5)


def mean(updates, weights):
    return find_aggregator("mean").combine(updates, weights, float, {})


@st.composite
def updates_and_weights(draw, equal_keys=False):
    """Up to five clients that hold the tensors a, b and c: each some of them, or all of them."""
    names = draw(st.sets(st.sampled_from("abc"), min_size=1))
    updates, weights = {}, {}
    for client in draw(st.sets(st.integers(0, 99), min_size=1, max_size=5)):
        held = names if equal_keys else draw(st.sets(st.sampled_from(sorted(names))))
        updates[client] = {
            name: torch.from_numpy(draw(hnp.arrays(np.float32, (2, 3), elements=values)))
            for name in sorted(held)
        }
        weights[client] = draw(weights_of)
    return updates, weights


@settings(max_examples=60)
@given(updates_and_weights(), st.randoms())
def test_the_order_of_clients_changes_no_bit(case, rng):
    updates, weights = case
    clients = list(updates)
    rng.shuffle(clients)
    shuffled = mean({i: updates[i] for i in clients}, {i: weights[i] for i in reversed(clients)})
    for name, tensor in mean(updates, weights).items():
        assert shuffled[name].numpy().tobytes() == tensor.numpy().tobytes()


@settings(max_examples=60)
@given(hnp.arrays(np.float32, (4,), elements=values), weights_of)
def test_the_mean_of_one_client_is_that_client(array, weight):
    tensor = torch.from_numpy(array)
    result = mean({3: {"a": tensor}}, {3: weight})["a"]
    assert result.dtype == torch.float32
    assert torch.equal(result, tensor)


@settings(max_examples=60)
@given(updates_and_weights(equal_keys=True))
def test_it_agrees_with_flowers_fedavg(case):
    updates, weights = case
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({n: Array(t.numpy()) for n, t in updates[i].items()}),
                "metrics": MetricRecord({"num-examples": weights[i]}),
            }
        )
        for i in updates
    ]
    theirs = flower.aggregate_arrayrecords(records, "num-examples")
    ours = mean(updates, weights)
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        largest = max(float(update[name].abs().max()) for update in updates.values())
        np.testing.assert_allclose(
            tensor.numpy(), theirs[name].numpy(), rtol=0, atol=2e-6 * largest + 1e-30
        )


@settings(max_examples=60)
@given(updates_and_weights())
def test_a_tensor_is_averaged_over_its_holders_only(case):
    updates, weights = case
    result = mean(updates, weights)
    assert set(result) == {name for update in updates.values() for name in update}
    for name, tensor in result.items():
        holders = {i: {name: update[name]} for i, update in updates.items() if name in update}
        alone = mean(holders, {i: weights[i] for i in holders})[name]
        assert tensor.numpy().tobytes() == alone.numpy().tobytes()


def test_weights_count_in_proportion():
    updates = {0: {"a": torch.zeros(2)}, 1: {"a": torch.full((2,), 4.0)}}
    assert torch.equal(mean(updates, {0: 1.0, 1: 3.0})["a"], torch.full((2,), 3.0))
    assert torch.equal(mean(updates, {0: 100.0, 1: 300.0})["a"], torch.full((2,), 3.0))
