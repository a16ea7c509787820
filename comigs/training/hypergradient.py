"""First-order gradient of the bilevel objective with respect to the routers.

Ref: Chayti and Jaggi, "A New First-Order Meta-Learning Algorithm with Convergence Guarantees".
Alternation takes d_phi L_val(theta, phi) and ignores that the experts theta would follow the
routers phi. The missing term is a difference of two gradients of the training loss:

    d_phi L_val(theta_0, phi) + [d_phi L_tr(theta_nu, phi) - d_phi L_tr(theta_0, phi)] / nu
    theta_nu ~ argmin_theta L_tr(theta, phi) + nu L_val(theta, phi)

Both theta_0 and theta_nu are reached by the same few steps from the present experts, so that what
the experts still have to learn cancels in the difference.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[int], Tensor]  # of an inner step's batch, at the tensors' present values


def hypergradient(
    train_loss: Loss,
    valid_loss: Loss,
    theta: Sequence[Tensor],
    phi: Sequence[Tensor],
    *,
    rates: Sequence[Tensor | float],
    nu: float,
    steps: int,
) -> list[Tensor]:
    """Return the gradient for each tensor of `phi`; `theta` is left as it was.

    Args:
        train_loss, valid_loss: given a batch number in 0..steps; batch `steps` is for the
            gradients of `phi`.
        theta, phi: leaf tensors that require grad.
        rates: inner step size per tensor of `theta`, a number or one per entry.
        nu: weight of the validation loss in the inner problem; the error of the result shrinks
            with it, the noise of the difference grows as 1 / nu.
        steps: inner steps.
    """
    start = [t.detach().clone() for t in theta]
    try:
        _descend(train_loss, None, theta, rates, 0.0, steps)
        gradient = _gradients(valid_loss(steps), phi)
        at_zero = _gradients(train_loss(steps), phi)
        _restore(theta, start)
        _descend(train_loss, valid_loss, theta, rates, nu, steps)
        at_nu = _gradients(train_loss(steps), phi)
    finally:
        _restore(theta, start)
    return [g + (b - a) / nu for g, a, b in zip(gradient, at_zero, at_nu, strict=True)]


def _descend(
    train_loss: Loss,
    valid_loss: Loss | None,
    theta: Sequence[Tensor],
    rates: Sequence[Tensor | float],
    nu: float,
    steps: int,
) -> None:
    for step in range(steps):
        gradients = _gradients(train_loss(step), theta)
        if valid_loss:
            extra = _gradients(valid_loss(step), theta)
            gradients = [g + nu * e for g, e in zip(gradients, extra, strict=True)]
        with torch.no_grad():
            for tensor, gradient, rate in zip(theta, gradients, rates, strict=True):
                tensor -= rate * gradient


def _gradients(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


@torch.no_grad()
def _restore(theta: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(theta, values, strict=True):
        tensor.copy_(value)
