"""The inverse of a matrix by products alone (Schulz; HyperINF, arXiv 2410.05090, section 3)."""

import torch
from torch import Tensor

from comigs.errors import ComigsError

MOST = 100  # steps; log2 of the condition number is enough, and a few


def schulz(matrix: Tensor, tolerance: float = 1e-7) -> Tensor:
    """X <- X (2 I - G X) from I / ||G||_F, until ||I - G X||_F is `tolerance` of ||I||_F.

    From this start it converges for every positive definite G: the eigenvalues of I - G X begin in
    [0, 1), and each step squares them.

    Args:
        matrix: G, symmetric and positive definite, k x k, fp64.

    Raises:
        ComigsError: it has not converged, as of a matrix that is singular.
    """
    one = torch.eye(len(matrix), dtype=matrix.dtype)
    inverse = one / matrix.norm()
    for _ in range(MOST):
        left = one - matrix @ inverse
        if left.norm() <= tolerance * one.norm():
            return inverse
        inverse = inverse + inverse @ left
    raise ComigsError(
        f"Schulz's iteration has not inverted a matrix of {len(one)} rows in {MOST} steps; "
        f"||I - G X|| is {float(left.norm()):.1e}"
    )
