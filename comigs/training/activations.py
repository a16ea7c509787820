"""How often the tokens of a round's expert steps choose each expert, layer by layer."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from comigs.messages.fields import ACTIVATIONS
from comigs.mixture.adapters import is_router
from comigs.mixture.router import Routing, slot_counts


class Activations:
    """Counts of one client.

    Args:
        names: of its adapter tensors, in the order of the model's layers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        routers = filter(is_router, names)
        self._layers = list(dict.fromkeys(name.partition(".router.")[0] for name in routers))
        self._counts: list[Tensor] = []
        self._top_k = 1

    def add(self, routings: Sequence[Routing], place: int, real: Tensor | None) -> None:
        """Take in one pass.

        Args:
            routings: of each layer, of one client or of n that share the pass.
            place: of the client among them.
            real: which of the pass's T tokens count, T or n x T; None: all.
        """
        each = [slot_counts(routing, real) for routing in routings]
        mine = [counts.view(-1, counts.shape[-1])[place] for counts in each]
        before = self._counts or [counts * 0 for counts in mine]
        self._counts = [a + b for a, b in zip(before, mine, strict=True)]
        self._top_k = routings[0].chosen.shape[-1] if routings else 1

    def shares(self) -> dict[str, Tensor]:
        """Of each layer the share of tokens that chose each expert, E numbers from 0 to 1."""
        return {
            f"{ACTIVATIONS}{layer}": counts.cpu().float() * self._top_k / max(1, int(counts.sum()))
            for layer, counts in zip(self._layers, self._counts, strict=True)
        }
