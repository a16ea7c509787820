"""How like its validation text a client's blocks are, by a linear classifier of their n-grams.

The filter of FineWeb2-HQ (arXiv 2502.10361) at the size of one client: its validation text is what
good text is, there is no model in it, and it costs seconds. Features are hashed single tokens and
pairs, as in fastText; the classifier is a logistic regression.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from comigs.data.windows import FILLING, read_marks

BUCKETS = 1 << 16
_ONE, _TWO = 0x9E3779B1, 0x85EBCA77  # odd numbers that spread tokens over the buckets


def likeness(blocks: Tensor, valid: Tensor) -> Tensor:
    """Each block's score (n, fp64): minus the log-odds that it is validation text.

    No block is judged by a classifier that has seen it: one learns from the even blocks and judges
    the odd ones, one the other way round.

    Args:
        blocks, valid: n x L+1 and m x L+1.
    """
    mine, theirs = features(blocks), features(valid)
    scores = torch.zeros(len(blocks), dtype=torch.float64)
    for fold in range(2):
        judged, learnt = slice(fold, None, 2), slice(1 - fold, None, 2)
        seen = mine[learnt] if len(blocks) > 1 else mine
        scores[judged] = -_logits(mine[judged], _fitted(theirs, seen))
    return scores


def features(windows: Tensor) -> Tensor:
    """The buckets of the tokens and pairs that windows (n x L+1) read, n x 2L-1; -1: of none."""
    ids, filled = read_marks(windows).ids, windows[:, :-1] == FILLING
    one = (ids * _ONE) % BUCKETS
    two = (ids[:, :-1] * _TWO + ids[:, 1:] * _ONE) % BUCKETS
    return torch.cat([one.where(~filled, -1), two.where(~filled[:, 1:], -1)], 1)


def _logits(buckets: Tensor, weights: Tensor) -> Tensor:
    """The last weight, and the sum of those of all features, which together have about norm 1."""
    there = buckets >= 0
    sums = (weights[buckets] * there).sum(1)
    return sums / there.sum(1).clamp(min=1).sqrt() + weights[-1]


def _fitted(good: Tensor, rest: Tensor) -> Tensor:
    """Logistic regression, both sides counted alike, with sklearn's default of L2 (C = 1)."""
    weights = torch.zeros(BUCKETS + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")
    count = len(good) + len(rest)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (
            F.softplus(-_logits(good, weights)).mean() + F.softplus(_logits(rest, weights)).mean()
        )
        loss = loss / 2 + weights[:-1].square().sum() / (2 * count)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()
