"""The traffic formula of stacks of LoRA pairs (`flora`, `fedex`): ranks add up."""

from collections import Counter
from collections.abc import Sequence

from comigs.aggregation.sizes import FLOAT, Group, OwnNames, Shapes


class Stacks:
    """Bytes of the last round's stack to whoever took part in it, of the sum of all to others.

    Args:
        mean: of A and B, where it travels beside a stack from which its product is taken off.
    """

    def __init__(self, mean: OwnNames | None = None) -> None:
        self._mean = mean
        self._last: dict[str, int] = {}  # rank, by name of A
        self._total: dict[str, int] = {}

    def add(self, groups: Sequence[Group]) -> None:
        stack: Counter[str] = Counter()
        smallest: dict[str, int] = {}  # side of the matrix: no sum has a higher rank
        for group in groups:
            for a, rank, inputs, outputs in _pairs(group.shapes):
                if self._mean and a not in stack:
                    stack[a] += rank
                stack[a] += len(group.clients) * rank
                smallest[a] = min(inputs, outputs)
        self._last |= stack
        for a, rank in stack.items():
            self._total[a] = min(self._total.get(a, 0) + rank, smallest[a])
        if self._mean:
            self._mean.add(groups)

    def to(self, shapes: Shapes, fresh: bool) -> int:
        ranks = self._last if fresh else self._total
        stacks = FLOAT * sum(ranks.get(a, 0) * (n + m) for a, _, n, m in _pairs(shapes))
        return stacks + (self._mean.to(shapes, fresh) if self._mean else 0)


def _pairs(shapes: Shapes) -> list[tuple[str, int, int, int]]:
    """(name of A, rank, inputs, outputs) of every LoRA pair that travels whole."""
    return [
        (name, shape[0], shape[1], shapes[b][0])
        for name, shape in shapes.items()
        if (b := name.replace(".lora_A.", ".lora_B.")) in shapes and b != name
    ]
