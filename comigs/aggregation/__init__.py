"""Aggregators: pure functions on dicts of tensors, one file each, named by `Method.aggregator`.

Each file defines `AGGREGATOR`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from comigs.aggregation.sizes import OwnNames, Sizes
from comigs.schema.byfile import find_in

Tensors = Mapping[str, Tensor]
Updates = Mapping[int, Tensors]
Scale = Callable[[int], float]


class Combine(Protocol):
    """Combines what clients sent; the result must not depend on their order."""

    def __call__(
        self, updates: Updates, weights: Mapping[int, float], scale: Scale, kept: Tensors
    ) -> dict[str, Tensor]:
        """Return what the server keeps.

        Args:
            updates: by client id, the tensors it sent.
            weights: by client id, its weight (> 0); they need not sum to 1.
            scale: the factor s of s B A in the clients' forward pass, by LoRA rank.
            kept: what the server has kept from the rounds before.
        """


class Deliver(Protocol):
    """Makes what one client gets."""

    def __call__(
        self, kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
    ) -> dict[str, Tensor]:
        """Return the tensors to send.

        Args:
            kept: what the server keeps.
            shapes: of the tensors that the client shares.
            scale: as in `Combine`.
            fresh: whether the client took part in the round that `kept` is from.
        """


def own_names(
    kept: Tensors, shapes: Mapping[str, tuple[int, ...]], scale: Scale, fresh: bool
) -> dict[str, Tensor]:
    """A client gets the tensors that it shares, as many rows of them as it has."""
    rows = {name: shapes[name][0] for name in kept if name in shapes}
    return {
        name: kept[name] if len(kept[name]) == count else kept[name][:count]
        for name, count in rows.items()
        if len(kept[name]) >= count
    }


class Arriving(NamedTuple):
    """What a tensor that a client gets is about.

    Attributes:
        name: of the client's own tensor.
        corrects: whether it is half of a LoRA pair of any rank, to be added to frozen weights.
    """

    name: str
    corrects: bool = False


def always(name: str) -> bool:
    return True


def everything(kept: Tensors, client: int) -> Tensors:
    return kept


@dataclass(frozen=True)
class Aggregator:
    """How the server combines what travels, and what goes back.

    Attributes:
        lasts: whether a tensor of this name still holds when a later round has not renewed it.
        mixed_ranks: whether clients may have different LoRA ranks.
        averages: whether it is the mean, so that a strategy of the server, a private mean or a
            secure sum can take its place.
        weighs: whether clients' weights change what it makes.
        sizes: begins an account of the bytes that `deliver` sends, for `comigs.costs.traffic`.
        arriving: reads the name of a tensor that `deliver` sends.
        view: what of all that is kept concerns one client, by its number, before `deliver`.
    """

    combine: Combine
    deliver: Deliver = own_names
    lasts: Callable[[str], bool] = always
    mixed_ranks: bool = False
    averages: bool = False
    weighs: bool = True
    sizes: Callable[[], Sizes] = OwnNames
    arriving: Callable[[str], Arriving] = Arriving
    view: Callable[[Tensors, int], Tensors] = everything

    def lasting(self, kept: Tensors) -> dict[str, Tensor]:
        """What of `kept` goes on to the next round, combined or abandoned."""
        return {name: tensor for name, tensor in kept.items() if self.lasts(name)}


def find_aggregator(name: str) -> Aggregator:
    """Return `AGGREGATOR` of comigs/aggregation/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    house = ("sizes", "stacks")
    found: Aggregator = find_in(sys.modules[__name__], "aggregator", name, "AGGREGATOR", house)
    return found
