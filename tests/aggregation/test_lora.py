"""Aggregators of LoRA pairs against the dense algebra that they stand for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.aggregation import find_aggregator
from comigs.aggregation.hetlora import sparsity_weights
from comigs.config.experts import ExpertsConfig
from comigs.mixture.ranks import cut, lora_scale

A, B = "mlp.up.lora_A.generalist_0.weight", "mlp.up.lora_B.generalist_0.weight"
OUT, IN = 12, 10
ALL = ["mean", "hetlora", "flexlora", "flora", "fedex", "gather", "others"]


def scale(rank):
    return 16 / math.sqrt(rank)


def client(seed, rank):
    rng = torch.Generator().manual_seed(seed)
    return {A: torch.randn(rank, IN, generator=rng), B: torch.randn(OUT, rank, generator=rng)}


def delta(tensors, a=A, b=B, s=None):
    """s B A in fp64."""
    factor = scale(tensors[a].shape[0]) if s is None else s
    return factor * tensors[b].double() @ tensors[a].double()


def mean_delta(updates, weights):
    total = sum(weights.values())
    return sum(delta(updates[i]) * weights[i] / total for i in updates)


def close(one, two):
    torch.testing.assert_close(one.double(), two.double(), rtol=0, atol=2e-6 * two.abs().max())


@st.composite
def federations(draw, same_rank=False):
    clients = draw(st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))
    rank = draw(st.integers(1, 4))
    ranks = [rank if same_rank else draw(st.integers(1, 4)) for _ in clients]
    updates = {
        i: client(draw(st.integers(0, 2**20)), r) for i, r in zip(clients, ranks, strict=True)
    }
    return updates, {i: draw(st.floats(0.5, 100)) for i in clients}


def combine(name, updates, weights, kept=None):
    return find_aggregator(name).combine(updates, weights, scale, kept or {})


def deliver(name, kept, rank, fresh=True):
    shapes = {A: (rank, IN), B: (OUT, rank)}
    return find_aggregator(name).deliver(kept, shapes, scale, fresh)


@settings(max_examples=40)
@given(federations())
def test_flora_stacks_to_the_exact_mean_delta(case):
    updates, weights = case
    sent = deliver("flora", combine("flora", updates, weights), 2)
    stack = [sent[n.replace("lora_", "stack_")] for n in (A, B)]
    assert len(stack[0]) == sum(len(u[A]) for u in updates.values())
    close(stack[1].double() @ stack[0].double(), mean_delta(updates, weights))


@settings(max_examples=40)
@given(federations(same_rank=True))
def test_fedex_average_and_residual_are_the_exact_mean_delta(case):
    updates, weights = case
    sent = deliver("fedex", combine("fedex", updates, weights), 2)
    stack = [sent[n.replace("lora_", "stack_")] for n in (A, B)]
    close(delta(sent) + stack[1].double() @ stack[0].double(), mean_delta(updates, weights))


def test_averaging_a_and_b_apart_is_not_exact():
    updates = {0: client(1, 2), 1: client(2, 2)}
    exact = mean_delta(updates, {0: 1, 1: 1})
    gap = delta(combine("mean", updates, {0: 1.0, 1: 1.0})) - exact
    assert gap.norm() > 0.3 * exact.norm()


def test_averages_of_b_over_one_frozen_a_are_exact():
    updates = {i: client(i, 2) | {A: client(0, 2)[A]} for i in range(3)}
    averaged = combine(
        "mean", {i: {B: u[B]} for i, u in updates.items()}, dict.fromkeys(range(3), 1.0)
    )
    close(delta(averaged | {A: updates[0][A]}), mean_delta(updates, dict.fromkeys(range(3), 1.0)))


@settings(max_examples=40)
@given(federations())
def test_flexlora_gives_each_rank_its_best_approximation(case):
    updates, weights = case
    kept = combine("flexlora", updates, weights)
    target = mean_delta(updates, weights)
    u, s, v = torch.linalg.svd(target, full_matrices=False)
    largest = max(len(update[A]) for update in updates.values())
    for rank in range(1, largest + 1):
        best = u[:, :rank] * s[:rank] @ v[:rank]
        got = deliver("flexlora", kept, rank)
        assert got[A].shape == (rank, IN)
        error = (delta(got) - target).norm()
        assert abs(error - (best - target).norm()) <= 1e-5 * target.norm()


def test_flexlora_at_full_rank_reconstructs_the_mean_delta():
    updates = {i: client(i, rank) for i, rank in enumerate([10, 3, 7])}
    kept = combine("flexlora", updates, {0: 1.0, 1: 5.0, 2: 2.0})
    close(delta(deliver("flexlora", kept, 10)), mean_delta(updates, {0: 1.0, 1: 5.0, 2: 2.0}))


def test_flexlora_weighs_mixed_ranks_by_the_scale_of_their_forward_pass():
    """A client of rank 1 and one of rank 4 with the same delta: the mean is that delta."""
    small = client(0, 1)
    large = {A: small[A].repeat(4, 1) / 4, B: small[B].repeat(1, 4) * (scale(1) / scale(4))}
    close(delta(small), delta(large))
    kept = combine("flexlora", {0: small, 1: large}, {0: 1.0, 1: 1.0})
    for rank in (1, 4):
        close(delta(deliver("flexlora", kept, rank)), delta(small))


@settings(max_examples=40)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(0, 4))
def test_hetlora_pads_and_truncates_without_loss(seed, rank, more):
    """What one client sends comes back, whatever higher rank the server keeps."""
    update = client(seed, rank)
    silent = {A: torch.zeros(rank + more, IN), B: torch.zeros(OUT, rank + more)}
    kept = combine("hetlora", {0: update, 1: silent}, {0: 1.0, 1: 1.0})
    assert kept[A].shape == (rank + more, IN)
    back = deliver("hetlora", kept, rank)
    torch.testing.assert_close(back[A], update[A])
    torch.testing.assert_close(back[B], update[B])


@settings(max_examples=40)
@given(federations())
def test_hetlora_weights_are_norms_of_b_a_and_sum_to_one(case):
    updates, _ = case
    shares = sparsity_weights(updates, dict.fromkeys(updates, 1.0))
    assert math.isclose(sum(shares.values()), 1)
    norms = {i: (u[B].double() @ u[A].double()).norm().item() for i, u in updates.items()}
    for i in updates:
        assert math.isclose(shares[i], norms[i] / sum(norms.values()), rel_tol=1e-6)


def test_hetlora_before_any_training_weighs_clients_alike():
    updates = {i: client(i, 2) | {B: torch.zeros(OUT, 2)} for i in range(4)}
    assert sparsity_weights(updates, dict.fromkeys(range(4), 1.0)) == dict.fromkeys(range(4), 0.25)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(federations(same_rank=True), st.randoms())
def test_the_order_of_clients_changes_no_bit(name, case, rng):
    updates, weights = case
    order = list(updates)
    rng.shuffle(order)
    one = combine(name, updates, weights)
    two = combine(name, {i: updates[i] for i in order}, {i: weights[i] for i in reversed(order)})
    assert list(one) == list(two)
    for key in one:
        assert one[key].numpy().tobytes() == two[key].numpy().tobytes()


@pytest.mark.parametrize("name", ["mean", "hetlora", "flexlora"])
def test_one_client_gets_its_own_delta_back(name):
    update = client(5, 3)
    back = deliver(name, combine(name, {7: update}, {7: 2.0}), 3)
    close(delta(back), delta(update))


def test_a_client_that_was_away_gets_the_sum_of_all_stacks():
    rounds = [{i: client(10 * r + i, 3) for i in range(3)} for r in range(4)]
    weights, kept = dict.fromkeys(range(3), 1.0), {}
    for updates in rounds:
        kept |= combine("flora", updates, weights, kept)
    sent = deliver("flora", kept, 3, fresh=False)
    pair = [sent[n.replace("lora_", "delta_")] for n in (A, B)]
    assert len(pair[0]) <= min(OUT, IN)
    close(pair[1].double() @ pair[0].double(), sum(mean_delta(u, weights) for u in rounds))
    assert not any("stack" in n for n in sent)


@settings(max_examples=40)
@given(
    st.integers(0, 999),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["rslora", "standard"]),
)
def test_cutting_keeps_the_first_components_as_they_were(seed, had, rank, scaling):
    experts = ExpertsConfig(scaling=scaling)
    whole = client(seed, had)
    part = cut(whole, rank, experts)
    left = min(had, rank)
    assert part[A].shape == (left, IN)
    expected = lora_scale(experts, had) * whole[B][:, :left] @ whole[A][:left]
    torch.testing.assert_close(lora_scale(experts, left) * part[B] @ part[A], expected)
