"""Routing and the balance loss: properties over all E and k."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.mixture.router import balance_loss, route, slot_counts


@st.composite
def routed(draw, min_experts=1):
    experts = draw(st.integers(min_experts, 6))
    top_k = draw(st.integers(1, experts))
    tokens = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**16))
    logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed)) * 3
    return logits, top_k


@given(routed())
@settings(max_examples=60)
def test_gates_choose_the_k_largest_logits_and_sum_to_one_when_k_exceeds_one(case):
    logits, k = case
    routing = route(logits, k)
    chosen = torch.zeros_like(logits).scatter(-1, routing.chosen, 1.0)
    assert (chosen.sum(-1) == k).all()
    lowest_in = logits.masked_fill(chosen == 0, float("inf")).min(-1).values
    highest_out = logits.masked_fill(chosen == 1, float("-inf")).max(-1).values
    assert (lowest_in >= highest_out).all()
    if k > 1:
        torch.testing.assert_close(routing.gates.sum(-1), torch.ones(len(logits)))
    else:
        torch.testing.assert_close(routing.gates[:, 0], logits.softmax(-1).max(-1).values)


@given(routed())
@settings(max_examples=60)
def test_every_slot_is_counted_once(case):
    logits, k = case
    assert slot_counts(route(logits, k)).sum() == len(logits) * k


@given(st.integers(1, 50), st.integers(0, 1000))
@settings(max_examples=30)
def test_balance_loss_is_the_constant_one_with_two_experts_both_chosen(tokens, seed):
    logits = torch.randn(tokens, 2, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    loss = balance_loss(route(logits, 2), 0.5)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(1.0))
    assert logits.grad.abs().max() < 1e-6


def test_balance_loss_written_out_by_hand_for_three_experts_top_two():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 1.0]])
    kept = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    d = torch.tensor([1.0, 2.0, 1.0]) / 4
    p = kept.softmax(-1).mean(0)
    c = torch.tensor([1 / (3 * 0.25), 2 / (3 * 0.75), 2 / (3 * 0.75)])
    want = 9 * (d * p * c).sum() / 3
    torch.testing.assert_close(balance_loss(route(logits, 2), 0.25), want)


@given(routed(min_experts=2), st.integers(2, 4))
@settings(max_examples=40)
def test_micro_batches_with_the_whole_batchs_counts_add_up_to_the_whole_batch(case, parts):
    logits, k = case
    logits = logits.repeat(parts, 1)[torch.randperm(len(logits) * parts)]
    whole = route(logits, k)
    counts = slot_counts(whole)
    pieces = [balance_loss(route(part, k), 0.5, counts) for part in logits.chunk(parts)]
    torch.testing.assert_close(torch.stack(pieces).mean(), balance_loss(whole, 0.5))


def test_over_micro_batches_it_is_e_sum_f_p_with_f_of_the_whole_batch():
    """Global-batch balance (arXiv 2501.11873): iota = 1 / E, the gradient through p alone."""
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    f, literal = torch.zeros(3), torch.zeros(())
    for row in logits.tolist():
        for e in sorted(range(3), key=row.__getitem__)[1:]:
            f[e] += 1 / 24
    for part in logits.split(4):
        chosen = part.detach() > part.detach().min(1, keepdim=True).values
        p = torch.where(chosen, part, 0.0).softmax(1).mean(0)
        literal = literal + 3 * (f * p).sum() / 3
    [want] = torch.autograd.grad(literal, logits)
    counts = slot_counts(route(logits, 2))
    parts = [route(part, 2) for part in logits.split(4)]
    loss = sum(balance_loss(part, 1 / 3, counts) for part in parts) / 3
    torch.testing.assert_close(loss, literal)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], want)
    alone = sum(balance_loss(part, 1 / 3) for part in parts) / 3
    assert not torch.allclose(torch.autograd.grad(alone, logits)[0], want, rtol=0.05)


@pytest.mark.parametrize("k", [1, 2])
def test_router_learns_through_gates(k):
    logits = torch.tensor([[0.3, -0.2, 0.1]], requires_grad=True)
    (route(logits, k).gates * torch.arange(1.0, k + 1)).sum().backward()
    assert logits.grad.abs().sum() > 0
