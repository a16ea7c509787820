"""FlexLoRA: the mean of the clients' s B A, cut by SVD to each client's rank (arXiv 2402.11505)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates
from comigs.mixture.ranks import pairs


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """The best approximation of sum_i p_i s_i B_i A_i of the largest client's rank.

    Kept as A = V^T and B = U S, without scale, components in falling order: a client of lower rank
    gets the first of them, which is the best approximation of its rank. s_i is the factor of the
    client's own forward pass, so mixed ranks weigh right.
    """
    out = {}
    for a, b in sorted({pair for update in updates.values() for pair in pairs(update)}):
        holders = sorted(i for i, update in updates.items() if a in update)
        total = sum(weights[i] for i in holders)
        left = [
            updates[i][b].double() * (scale(updates[i][a].shape[0]) * weights[i] / total)
            for i in holders
        ]
        right = [updates[i][a].double() for i in holders]
        rank = max(len(r) for r in right)
        u, s, v = small_svd(torch.cat(left, 1), torch.cat(right))
        out[a] = _filled(v[:rank], rank, 0).float()
        out[b] = _filled((u * s)[:, :rank], rank, 1).float()
    return out


def small_svd(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V^T of B A (out x R times R x in), without forming the product."""
    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.t())
    u, s, v = torch.linalg.svd(r_b @ r_a.t(), full_matrices=False)
    return q_b @ u, s, v @ q_a.t()


def _filled(tensor: Tensor, size: int, dim: int) -> Tensor:
    """`tensor` with zeros at the end of `dim`, where the product has no more components."""
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def deliver(
    kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
) -> dict[str, Tensor]:
    """The client's rank r_i of components, B divided by its s_i."""
    out = {}
    for a, b in pairs({name: t for name, t in kept.items() if name in shapes}):
        rank = shapes[a][0]
        out[a] = _filled(kept[a][:rank], rank, 0)
        out[b] = _filled(kept[b][:, :rank] / scale(rank), rank, 1)
    return out


AGGREGATOR = Aggregator(combine, deliver, mixed_ranks=True)
