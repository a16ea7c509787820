"""Bytes that will travel in a run, known before it starts: tensor values, without framing.

Keys and shares of secure aggregation are framing. It follows each aggregator's rule of what goes
back (`comigs/aggregation`) on shapes alone, round by round, with the participants and lost devices
that the seed draws, and no failures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comigs.config.settings import ExpertsConfig, RunConfig
from comigs.costs.shapes import adapter_shapes
from comigs.federation.clients import experts_of, training_clients
from comigs.federation.selection import answering, takers_of_the_test
from comigs.messages.codecs import wire_bytes
from comigs.methods import find_method

FROM_THE_START = ("FedAdam", "FedYogi", "FedAvgM")  # strategies that send tensors in round 1 too
FLOAT = 4  # only float32 travels down; up as the codec packs it
Shapes = Mapping[str, tuple[int, int]]
Kind = ExpertsConfig  # clients with equal experts share tensors of equal shapes


@dataclass
class Traffic:
    """Bytes of one client.

    Attributes:
        update: what it sends in a round it takes part in.
        up: what it sends, by round; 0 where it does not take part.
        down: what it gets, by round, and last for the final evaluation.
        exact: false where a client may lower its rank, or updates may come too late to count.
    """

    update: int = 0
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    exact: bool = True


def traffic(config: RunConfig) -> list[Traffic]:
    """What each client sends and gets."""
    method = find_method(config.method)
    clients = range(len(training_clients(config)))
    if not method.trains:
        return [Traffic(down=[0]) for _ in clients]
    kind_of = [experts_of(config, i) for i in clients]
    examples = dict(zip(reversed(kind_of), reversed(clients), strict=True))
    shared = {
        kind: {n: s for n, s in adapter_shapes(config, i).items() if method.shares(n)}
        for kind, i in examples.items()
    }
    ups = {kind: wire_bytes(config.payload, shapes) for kind, shapes in shared.items()}
    models = {kind: _bytes(shapes) for kind, shapes in shared.items()}
    in_time = config.server.deadline is None and not config.server.over_selection
    exact = method.prune is None and in_time
    lines = [Traffic(ups[kind], exact=exact) for kind in kind_of]
    kept = _Kept(method.aggregator, shared)
    if config.server.strategy in FROM_THE_START:
        kept.names |= set(shared[kind_of[0]])
    before: set[int] = set()
    for number in range(1, config.rounds + 1):
        chosen = set(answering(config, number, clients))
        down = kept.delivered()
        for i in clients:
            lines[i].up.append(ups[kind_of[i]] if i in chosen else 0)
            lines[i].down.append(down[kind_of[i], i in before] if i in chosen else 0)
        if len(chosen) >= config.server.min_clients:  # or the server leaves its tensors as they are
            kept.add([kind_of[i] for i in chosen], {i: models[kind_of[i]] for i in chosen})
        before = chosen
    down, tested = kept.delivered(), set(takers_of_the_test(config, clients))
    for i in clients:
        lines[i].down.append(down[kind_of[i], i in before] if i in tested else 0)
    return lines


class _Kept:
    """What the server keeps, as far as its size goes, by name of tensor.

    Attributes:
        names: tensors that are averaged.
        models: bytes of each client's shared tensors, where all get everybody's (`gather`).
        stack, total: LoRA rank of the last round's stack and of the sum of all, by name of A
            (`flora`, `fedex`).
    """

    def __init__(self, aggregator: str, shared: Mapping[Kind, Shapes]) -> None:
        self.aggregator, self.shared = aggregator, shared
        self.names: set[str] = set()
        self.models: dict[int, int] = {}
        self.stack: dict[str, int] = {}
        self.total: dict[str, int] = {}

    def add(self, kinds: Sequence[Kind], models: Mapping[int, int]) -> None:
        """Take in one round's updates: the kind of each, and its tensors' bytes by client."""
        self.models |= models
        counts = Counter(kinds)
        self.names |= {name for kind in counts for name in self.shared[kind]}
        if self.aggregator not in ("flora", "fedex"):
            return
        stack: Counter[str] = Counter()
        smallest: dict[str, int] = {}
        for kind, count in counts.items():
            for a, (rank, inputs) in _firsts(self.shared[kind]):
                if self.aggregator == "fedex" and a not in stack:
                    stack[a] += rank  # the mean, taken off again
                stack[a] += count * rank
                smallest[a] = min(inputs, self.shared[kind][_second(a)][0])
        self.stack |= stack
        for a, rank in stack.items():
            self.total[a] = min(self.total.get(a, 0) + rank, smallest[a])

    def delivered(self) -> dict[tuple[Kind, bool], int]:
        """Bytes to a client, by kind and by whether it took part in the last round."""
        if self.aggregator == "gather":
            everything = sum(self.models.values())
            return {(kind, fresh): everything for kind in self.shared for fresh in (True, False)}
        return {
            (kind, fresh): self._to(shapes, fresh)
            for kind, shapes in self.shared.items()
            for fresh in (True, False)
        }

    def _to(self, shapes: Shapes, fresh: bool) -> int:
        count = 0
        if self.aggregator != "flora":
            count = _bytes({n: s for n, s in shapes.items() if n in self.names})
        ranks = self.stack if fresh else self.total
        for a, (_, inputs) in _firsts(shapes):
            count += FLOAT * ranks.get(a, 0) * (inputs + shapes[_second(a)][0])
        return count


def _firsts(shapes: Shapes) -> list[tuple[str, tuple[int, int]]]:
    """The A of every LoRA pair that travels whole."""
    return [(n, s) for n, s in shapes.items() if ".lora_A." in n and _second(n) in shapes]


def _second(a: str) -> str:
    return a.replace(".lora_A.", ".lora_B.")


def _bytes(shapes: Shapes) -> int:
    return FLOAT * sum(a * b for a, b in shapes.values())
