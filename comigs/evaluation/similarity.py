"""How alike what clients' experts have learnt is: cosines between their changes of the base.

The change that an expert makes to a linear is B A; A and B themselves say nothing, since (B R) and
(R^-1 A) make the same one. A client with several experts of a kind counts as their sum: it does
not depend on their order, and any number of them can be compared with any other.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from comigs.mixture.ranks import pairs

LAYER = re.compile(r"\.(\d+)\.")  # the first number in a tensor's name


def cosines(clients: Sequence[Mapping[str, Tensor]], kind: str) -> dict[int, Tensor]:
    """Cosines between n clients' experts of one kind, by layer from 0: n x n each, fp64.

    A layer's linears count as one vector. Of clients with no such expert there, or one that has
    learnt nothing (B is 0), the row and the column are NaN.

    Args:
        clients: of each its adapter tensors by name; ranks may differ.
        kind: what the experts' names begin with: generalist or specialist.
    """
    factors: dict[str, dict[int, list[tuple[Tensor, Tensor]]]] = {}
    for number, tensors in enumerate(clients):
        for a, b in pairs(tensors):
            linear, _, expert = a.partition(".lora_A.")
            if expert.startswith(f"{kind}_") and LAYER.search(linear):
                found = factors.setdefault(linear, {}).setdefault(number, [])
                found.append((tensors[a].double(), tensors[b].double()))
    products: dict[int, Tensor] = {}
    for linear, owners in factors.items():
        layer = int(LAYER.search(linear)[1])  # type: ignore[index]
        inner = _inner(owners, len(clients))
        products[layer] = products[layer] + inner if layer in products else inner
    return {layer: _normed(products[layer]) for layer in sorted(products)}


def _inner(found: Mapping[int, Sequence[tuple[Tensor, Tensor]]], n: int) -> Tensor:
    """<B_i A_i, B_j A_j> of every two clients, n x n, from rank-sized products alone.

    It is tr((B_i^T B_j) (A_j A_i^T)): the entries of B_i^T B_j times those of A_i A_j^T, summed.
    """
    owners = [i for i, experts in found.items() for a, _ in experts for _ in range(len(a))]
    a = torch.cat([a for experts in found.values() for a, _ in experts])
    b = torch.cat([b for experts in found.values() for _, b in experts], 1)
    member = torch.zeros(len(owners), n, dtype=torch.double)
    member[range(len(owners)), owners] = 1
    return member.T @ ((b.T @ b) * (a @ a.T)) @ member


def _normed(inner: Tensor) -> Tensor:
    norms = inner.diagonal().clamp(min=0).sqrt()
    norms = torch.where(norms > 0, norms, torch.nan)
    return (inner / norms[:, None] / norms).clamp(-1, 1)
