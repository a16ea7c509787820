"""Products with a small side: right values and gradients, alike for one matrix and for n."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comigs.mixture.algebra import linear, product

sizes = st.integers(1, 12)


@given(sizes, sizes, sizes, st.booleans())
def test_a_product_is_the_product_whatever_its_shape(rows, inner, columns, many):
    rng = torch.Generator().manual_seed(rows)
    lead = (3,) if many else ()
    a = torch.randn(*lead, rows, inner, generator=rng, dtype=torch.float64)
    b = torch.randn(*lead, inner, columns, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(product(a, b), a @ b)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("add", [False, True])
def test_gradients_of_linear(lead, add):
    rng = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (2, 5)] + [(7, 2)] * add
    leaves = [
        torch.randn(*lead, *shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(linear, leaves)


def test_clients_in_one_product_have_the_bits_of_each_alone():
    rng = torch.Generator().manual_seed(0)
    x, w, g = (torch.randn(3, *shape, generator=rng) for shape in ((64, 32), (8, 32), (64, 8)))

    def gradients(x, w, g):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        linear(x, w).backward(g)
        return x.grad, w.grad

    together = gradients(x, w, g)
    for i in range(3):
        for one, many in zip(gradients(x[i], w[i], g[i]), together, strict=True):
            assert torch.equal(one, many[i])
