"""Influence by gradients: TracIN, DataInf and HyperINF, each a direction to compare blocks with.

With g_i the gradient of the loss on block i and g_val that on validation text, all three are

    score_i = -<v, g_i>,  lower = more helpful,  v = H^-1 g_val,

and differ in the H that stands for the curvature. All is one sum over weights. `blocks` are read
from their start as often as a rule needs: what is held is the size of one gradient.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from comigs.influence.schulz import schulz

Tensors = Mapping[str, Tensor]
Rule = Callable[[Tensors, Iterable[Tensors]], dict[str, Tensor]]
DAMPING = 0.1  # lambda of a weight, of the mean square of its gradients, as DataInf has it


def tracin(valid: Tensors, blocks: Iterable[Tensors]) -> dict[str, Tensor]:
    """H = I: one checkpoint of TracIN (arXiv 2002.08484)."""
    return dict(valid)


def datainf(valid: Tensors, blocks: Iterable[Tensors]) -> dict[str, Tensor]:
    """H^-1 = mean_i (g_i g_i^T + lambda I)^-1, whose terms Sherman-Morrison inverts.

    DataInf (arXiv 2310.00902, equation 5), each weight one vector:
    v = mean_i (g_val - g_i <g_i, g_val> / (lambda + ||g_i||^2)) / lambda.
    """
    count, squares = 0, {name: 0.0 for name in valid}
    for block in blocks:
        count += 1
        for name, g in block.items():
            squares[name] += float(g.double().square().sum())
    damping = {n: DAMPING * s / (count * valid[n].numel()) for n, s in squares.items() if s}
    known = {name: torch.zeros_like(g, dtype=torch.float64) for name, g in valid.items()}
    for block in blocks:
        for name, lam in damping.items():
            g = block[name].double()
            along = (g * valid[name].double()).sum() / (lam + g.square().sum())
            known[name] += along / count * g
    return {
        name: (valid[name].double() - known[name]) / damping[name] if name in damping else v
        for name, v in known.items()
    }


def hyperinf(valid: Tensors, blocks: Iterable[Tensors]) -> dict[str, Tensor]:
    """H = G of every weight's rows, or columns, which are a LoRA's rank (arXiv 2410.05090).

    G = mean_i g_i g_i^T + lambda I, with each g_i (k x d) turned so that k <= d; v = G^-1 g_val.
    The generalised Fisher matrix, inverted by Schulz's iteration. A weight whose gradient is 0 on
    every block says nothing: A, while B is 0.
    """
    count, ranks = 0, {name: min(g.shape) for name, g in valid.items()}
    sums = {name: torch.zeros(k, k, dtype=torch.float64) for name, k in ranks.items()}
    for block in blocks:
        count += 1
        for name, g in block.items():
            flat = _flat(g)
            sums[name] += flat @ flat.T
    found = {}
    for name, g in valid.items():
        fisher = sums[name] / max(1, count)
        damping = DAMPING * float(fisher.trace()) / g.numel()
        if not damping:
            found[name] = torch.zeros_like(g, dtype=torch.float64)
            continue
        fisher += damping * torch.eye(len(fisher), dtype=torch.float64)
        moved = schulz(fisher) @ _flat(g)
        found[name] = moved.T if g.shape[0] > g.shape[1] else moved
    return found


def score(direction: Tensors, block: Tensors) -> float:
    """-<v, g_i>: lower for a block that helps more."""
    return -sum(float((direction[name] * g.double()).sum()) for name, g in block.items())


def _flat(gradient: Tensor) -> Tensor:
    """fp64, no more rows than columns."""
    wide = gradient.T if gradient.shape[0] > gradient.shape[1] else gradient
    return wide.double()
