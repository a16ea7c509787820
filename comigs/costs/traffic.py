"""Bytes that will travel in a run, known before it starts: tensor values, without framing.

Keys and shares of secure aggregation are framing. Each aggregator has a formula of what goes back
(`Aggregator.sizes`); it is followed round by round, with the participants and lost devices that the
seed draws, and no failures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comigs.aggregation.sizes import Group, bytes_of
from comigs.config.experts import ExpertsConfig
from comigs.config.strategies import find_strategy
from comigs.costs.ahead import Ahead
from comigs.costs.shapes import adapter_shapes
from comigs.federation.edges import at_edges_once, edges_of
from comigs.federation.layers import of_round
from comigs.federation.run import Run
from comigs.federation.selection import takers_of_the_test
from comigs.messages.codecs import wire_bytes


@dataclass
class Traffic:
    """Bytes of one client.

    Attributes:
        update: the most that it sends in a round it takes part in.
        rounds: those that it takes part in.
        up: what it sends, by round; 0 where it does not take part.
        down: what it gets, by round, and last for the final evaluation.
        edge_up, edge_down: of the run's rounds between its edge and the server (`server.tiers`);
            of each round with the first of those that it stands for.
        exact: false where a client may lower its rank, updates may come too late to count, rounds
            overlap (`server.mode` buffered), or devices come and go (`devices.traces`): who takes
            part in one is then an estimate.
    """

    update: int = 0
    rounds: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    edge_up: int = 0
    edge_down: int = 0
    exact: bool = True


@dataclass(frozen=True)
class Expected:
    """A run's bytes by client, and the simulated seconds of its rounds; None without devices."""

    clients: list[Traffic]
    sim_seconds: float | None


def traffic(run: Run) -> Expected:
    """What each client sends and gets."""
    method, config, clients = run.method, run.config, range(len(run.names))
    if not method.trains:
        return Expected([Traffic(down=[0]) for _ in clients], None)
    kind_of = [client.experts for client in run.clients()]  # equal experts share equal shapes
    examples = dict(zip(reversed(kind_of), reversed(clients), strict=True))
    shared = {
        kind: method.travelling(adapter_shapes(run.client(i))) for kind, i in examples.items()
    }
    ups = {kind: wire_bytes(config.payload, shapes) for kind, shapes in shared.items()}
    buffered = config.server.mode == "buffered"
    in_time = config.server.deadline is None and not config.server.over_selection and not buffered
    drawn = in_time and run.availability is None
    exact = method.prune is None and drawn and not run.may_rest
    lines = [Traffic(ups[kind], exact=exact) for kind in kind_of]
    kept = run.aggregator.sizes()
    if find_strategy(config.server.strategy).from_start or config.start is not None:
        kept.add([Group(shared[kind_of[0]], [])])

    some, news = config.train.layers is not None, set[str]()  # tensors of the last combined round

    def trained(i: int, number: int) -> Mapping[str, tuple[int, ...]]:
        whole = shared[kind_of[i]]
        return of_round(config, i, number, whole) if some else whole

    def up(i: int, number: int) -> int:
        return wire_bytes(config.payload, trained(i, number)) if some else ups[kind_of[i]]

    def size(kind: ExpertsConfig, fresh: bool) -> int:
        whole = kept.to(shared[kind], fresh)
        if not (fresh and whole and config.payload.down != "none"):
            return whole
        changed = {name: shape for name, shape in shared[kind].items() if name in news}
        return wire_bytes(config.payload.downward, changed)

    def downloads() -> dict[tuple[ExpertsConfig, bool], int]:
        return {(kind, fresh): size(kind, fresh) for kind in shared for fresh in (True, False)}

    before: set[int] = set()
    ahead = Ahead(run, len(clients), up)
    for number in range(1, config.rounds + 1):
        down = downloads()
        sizes = [down[kind, i in before] for i, kind in enumerate(kind_of)]
        chosen, arrived = ahead.round(number, sizes)
        for i in clients:
            lines[i].rounds += [number] if i in chosen else []
            lines[i].up.append(up(i, number) if i in chosen else 0)
            lines[i].down.append(sizes[i] if i in chosen else 0)
        groups = []
        if len(arrived) >= config.server.min_clients:  # or the server's tensors stay
            alike: dict[object, list[int]] = {}
            for i in sorted(arrived):
                alike.setdefault(i if some else kind_of[i], []).append(i)
            groups = [Group(trained(members[0], number), members) for members in alike.values()]
        kept.add(groups)
        news = {name for group in groups for name in group.shapes}
        if config.server.tiers is not None:
            got = {i: lines[i].down[-1] for i in chosen}
            for members in edges_of(run, chosen).values():
                lines[members[0]].edge_up += bytes_of(shared[kind_of[members[0]]])
                lines[members[0]].edge_down += at_edges_once(run, {i: got[i] for i in members})
        before = chosen
    down, tested = downloads(), set(takers_of_the_test(run, clients))
    for i in clients:
        fresh = i in before and config.train.swa is None
        lines[i].down.append(down[kind_of[i], fresh] if i in tested else 0)
        lines[i].update = max(lines[i].up) or lines[i].update
    return Expected(lines, None if run.devices is None else ahead.clock)
