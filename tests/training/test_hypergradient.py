"""The first-order router gradient against closed forms."""

import pytest
import torch

from comigs.training.hypergradient import hypergradient

rng = torch.Generator().manual_seed(0)
M = torch.randn(5, 3, generator=rng, dtype=torch.float64)
TARGET = torch.randn(5, generator=rng, dtype=torch.float64)
PHI = torch.randn(3, generator=rng, dtype=torch.float64)
PULL = 0.1 * M.t() @ (TARGET - M @ PHI)  # the direct part of L_val, against the whole gradient


def problem(phi, theta, coupling=1.0):
    """L_tr = |theta - M phi|^2 / 2 and L_val = |theta - t|^2 / 2 + PULL phi.

    theta*(phi) = M phi, so that dF/dphi = M^T (M phi - t) + PULL.
    """
    return (
        lambda step: coupling * (theta - M @ phi).square().sum() / 2,
        lambda step: (theta - TARGET).square().sum() / 2 + PULL @ phi,
    )


def estimate(nu, steps=400, start=None):
    phi = PHI.clone().requires_grad_()
    theta = (M @ PHI if start is None else start).clone().requires_grad_()
    before = theta.detach().clone()
    train_loss, valid_loss = problem(phi, theta)
    (found,) = hypergradient(
        train_loss, valid_loss, [theta], [phi], rates=[0.2], nu=nu, steps=steps
    )
    assert torch.equal(theta, before)
    return found


EXACT = M.t() @ (M @ PHI - TARGET) + PULL


def test_it_has_the_right_sign_where_alternation_has_the_wrong_one():
    phi = PHI.clone().requires_grad_()
    _, valid_loss = problem(phi, M @ PHI)
    (alternating,) = torch.autograd.grad(valid_loss(0), phi)
    assert alternating @ EXACT < 0
    assert estimate(0.1) @ EXACT > 0


@pytest.mark.slow
@pytest.mark.parametrize("nu", [1.0, 0.1, 0.01, 0.001])
def test_its_error_shrinks_with_nu(nu):
    """theta_nu = (M phi + nu t) / (1 + nu), so that the missing term is off by 1 / (1 + nu)."""
    error = estimate(nu) - EXACT
    torch.testing.assert_close(error, -nu / (1 + nu) * (EXACT - PULL), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_experts_that_have_not_converged_do_not_blow_it_up(steps):
    """After few steps it is the gradient through those steps, for any small nu."""
    start = torch.zeros(5, dtype=torch.float64)
    small, smaller = estimate(1e-2, steps, start), estimate(1e-4, steps, start)
    torch.testing.assert_close(small, smaller, rtol=0.05, atol=0.05)
    assert small.norm() < 10 * EXACT.norm()


def test_a_tensor_that_no_loss_reaches_gets_zero():
    phi, idle = PHI.clone().requires_grad_(), torch.ones(2).requires_grad_()
    theta = (M @ PHI).clone().requires_grad_()
    train_loss, valid_loss = problem(phi, theta)
    _, zero = hypergradient(
        train_loss, valid_loss, [theta], [phi, idle], rates=[0.2], nu=0.1, steps=2
    )
    assert torch.equal(zero, torch.zeros(2))
