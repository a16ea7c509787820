"""Influence by gradients: the exact inverse, and each paper's formula written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.errors import ComigsError
from comigs.influence.rules import datainf, hyperinf, score, tracin
from comigs.influence.schulz import schulz


def gradients(seed, count=6, shapes=((3, 5), (7, 2))):
    rng = torch.Generator().manual_seed(seed)
    names = [f"w{i}" for i in range(len(shapes))]
    return [
        {name: torch.randn(shape, generator=rng) for name, shape in zip(names, shapes, strict=True)}
        for _ in range(count)
    ]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 8), st.floats(-6, 6))
def test_schulz_gives_the_true_inverse(seed, size, power):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double()
    matrix = (root @ root.T + 1e-3 * torch.eye(size)) * 10**power
    inverse = schulz(matrix)
    torch.testing.assert_close(matrix @ inverse, torch.eye(size).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix), rtol=1e-4, atol=1e-6 * 10**-power)


def test_schulz_says_that_a_singular_matrix_has_no_inverse():
    with pytest.raises(ComigsError, match="has not inverted a matrix of 2 rows"):
        schulz(torch.ones(2, 2, dtype=torch.float64))


def test_hyperinf_is_the_true_inverse_of_the_damped_fisher_matrix_of_each_weight():
    valid, *blocks = gradients(1)
    direction = hyperinf(valid, blocks)
    total = 0.0
    for name, turned in (("w0", False), ("w1", True)):  # w1 has 2 columns: the rank
        flat = [b[name].double().T if turned else b[name].double() for b in blocks]
        val = valid[name].double().T if turned else valid[name].double()
        mean_square = sum(g.square().mean() for g in flat) / len(flat)
        fisher = sum(g @ g.T for g in flat) / len(flat) + 0.1 * mean_square * torch.eye(len(val))
        expected = torch.linalg.inv(fisher) @ val
        torch.testing.assert_close(direction[name], expected.T if turned else expected)
        total -= float((expected * flat[0]).sum())
    assert score(direction, blocks[0]) == pytest.approx(total)


def test_on_vectors_hyperinf_is_newtons_step_with_one_curvature():
    """k = 1: G is the number mean ||g||^2 + lambda. g = (1, 0), (0, 3): mean ||g||^2 = 5, and
    lambda = 0.1 x 5 / 2."""
    blocks = [{"w": torch.tensor([[1.0, 0.0]])}, {"w": torch.tensor([[0.0, 3.0]])}]
    direction = hyperinf({"w": torch.tensor([[2.0, -1.0]])}, blocks)
    torch.testing.assert_close(direction["w"], torch.tensor([[2.0, -1.0]]).double() / 5.25)


def test_datainf_is_the_mean_of_the_inverses():
    valid, *blocks = gradients(2)
    direction = datainf(valid, blocks)
    for name, val in valid.items():
        flat = [b[name].double().flatten() for b in blocks]
        lam = 0.1 * sum(g.square().mean() for g in flat) / len(flat)
        one = torch.eye(val.numel()).double()
        inverse = sum(torch.linalg.inv(torch.outer(g, g) + lam * one) for g in flat) / len(flat)
        expected = (inverse @ val.double().flatten()).view_as(val)
        torch.testing.assert_close(direction[name], expected)


def test_tracin_is_the_inner_product_and_what_leads_down_helps():
    valid = {"w": torch.tensor([[1.0, 2.0]])}
    helps, hurts = {"w": torch.tensor([[3.0, 1.0]])}, {"w": torch.tensor([[-1.0, -1.0]])}
    direction = tracin(valid, [])
    assert (score(direction, helps), score(direction, hurts)) == (-5, 3)


@pytest.mark.parametrize("rule", [tracin, datainf, hyperinf])
def test_a_weight_without_a_gradient_adds_nothing(rule):
    valid, *blocks = gradients(3)
    nothing = torch.zeros(4, 4)
    more = [block | {"A": nothing} for block in blocks]
    one = rule(valid | {"A": nothing}, more)
    assert not one["A"].any()
    assert score(one, more[0]) == score(rule(valid, blocks), blocks[0])
