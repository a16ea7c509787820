"""Experts by how often each client's tokens chose them (FLAME, arXiv 2506.16600).

Beside its tensors a client sends, for each mixture, which share f of its tokens chose each expert.
What an expert's mixture holds of it is averaged with the clients' weights times f; where nobody
chose it, and of all other tensors, the weights count alone.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from comigs.aggregation import Aggregator, Scale, Tensors, Updates
from comigs.aggregation.mean import weighted_mean
from comigs.aggregation.sizes import Group, OwnNames
from comigs.messages.fields import ACTIVATIONS

EXPERT = re.compile(r"(?<=\.generalist_)\d+(?=\.)")


def combine(
    updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
) -> dict[str, Tensor]:
    """The mean of each tensor over the clients that hold it."""
    names = sorted({name for update in updates.values() for name in update})
    layers = [name.removeprefix(ACTIVATIONS) for name in names if name.startswith(ACTIVATIONS)]
    out = {}
    for name in (name for name in names if not name.startswith(ACTIVATIONS)):
        held = {i: update[name] for i, update in updates.items() if name in update}
        chose = {i: weights[i] * share_of(name, layers, updates[i]) for i in held}
        active = {i: tensor for i, tensor in held.items() if chose[i] > 0}
        out[name] = weighted_mean(active or held, chose if active else weights)
    return out


def share_of(name: str, layers: Sequence[str], update: Tensors) -> float:
    """Which share of a client's tokens went through a tensor, from 0 to 1.

    Args:
        layers: paths of the mixtures, with `.gates` where they are on one linear of the attention.
            What only the first expert has, or none, is used by every token.
    """
    found = EXPERT.search(name)
    if found is None or EXPERT.sub("1", name) not in update:
        return 1.0
    layer = next((each for each in layers if name.startswith(each.removesuffix("gates"))), None)
    shares, expert = update.get(f"{ACTIVATIONS}{layer}"), int(found[0])
    if shares is None or expert >= len(shares):
        return 0.0
    return min(1.0, max(0.0, float(shares[expert])))


class WithoutShares(OwnNames):
    """Bytes of what a client shares but for the activations, which only go up."""

    def add(self, groups: Sequence[Group]) -> None:
        tensors = (
            {n: s for n, s in group.shapes.items() if not n.startswith(ACTIVATIONS)}
            for group in groups
        )
        super().add([Group(s, group.clients) for s, group in zip(tensors, groups, strict=True)])


AGGREGATOR = Aggregator(combine, sizes=WithoutShares)
