"""Which clients' tensors can be combined: by what the method shares, and beside the others."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from comigs.config.strategies import find_strategy
from comigs.federation.run import Client as RunClient
from comigs.federation.run import Run
from comigs.messages.reply import Broken, Hello
from comigs.mixture.adapters import is_router
from comigs.mixture.routers import router_shapes
from comigs_server.fleet.exchange import Answer, Client

A, B = ".lora_A.", ".lora_B."
MOST_ELEMENTS = 2**31  # of all tensors of one client
Shape = tuple[int, ...]


def check_fit(said: Hello, run: Run) -> None:
    """Rounds of this run; names that the method shares, LoRA pairs whole, of the configured rank.

    Raises:
        Broken: what is not so.
    """
    method, shapes = run.method, said.shapes
    if max(said.rounds, default=0) > run.config.rounds:
        raise Broken(f"has round {max(said.rounds)}; the run has {run.config.rounds}")
    rank = run.client(said.client).experts.rank
    if sum(math.prod(shape) for shape in shapes.values()) > MOST_ELEMENTS:
        raise Broken(f"has more than {MOST_ELEMENTS} elements to share")
    for name, shape in shapes.items():
        if not method.trains or not method.shares(name):
            raise Broken(f"has {name[:120]!r}, which {method.name} does not share")
        if is_router(name) and not _has_a_row_for_each(run.client(said.client), name, shape):
            raise Broken(f"has {name[:120]!r} of shape {shape}, not one row for each expert")
        if A not in name and B not in name:
            continue
        other = name.replace(A, B) if A in name else name.replace(B, A)
        if len(shape) != 2 or (method.shares(other) and other not in shapes):
            raise Broken(f"has {name[:120]!r} of shape {shape}, or half a pair")
        if (has := shape[0] if A in name else shape[1]) != rank:
            raise Broken(f"has {name[:120]!r} of rank {has}, not {rank}")


def _has_a_row_for_each(client: RunClient, name: str, shape: Shape) -> bool:
    experts = client.experts
    right = router_shapes(experts.router, shape[-1], experts.total).get(
        name.partition(".router.")[2]
    )
    return right is not None and len(shape) == len(right) and shape[0] == right[0]


def of_one_shape(
    run: Run, clients: Sequence[Client], kept: Mapping[str, Tensor]
) -> tuple[list[Client], list[Answer]]:
    """The clients whose tensors can be combined, and why the others' cannot.

    What the server has kept decides, then the majority, then the lowest id. LoRA ranks may differ,
    and numbers of experts, of which a router has a row for each.

    Args:
        kept: by the server, from earlier rounds.
    """
    tables = {id(c.shapes): {n: _unranked(n, s) for n, s in c.shapes.items()} for c in clients}
    counts = Counter(id(client.shapes) for client in clients)
    votes: dict[str, Counter[Shape]] = {}
    for table, count in counts.items():
        for name, shape in tables[table].items():
            votes.setdefault(name, Counter())[shape] += count
    right = {name: max(found, key=found.__getitem__) for name, found in votes.items()}
    for name in right.keys() & kept.keys():
        right[name] = _unranked(name, tuple(kept[name].shape))
    odd = {
        table: next((f"{n!r} of another shape" for n, s in named.items() if s != right[n]), "")
        for table, named in tables.items()
    }
    if _needs_the_same(run):
        same: Counter[frozenset[str]] = Counter()
        for table, count in counts.items():
            same[frozenset(tables[table])] += 0 if odd[table] else count
        most = max(same, key=same.__getitem__, default=frozenset())
        odd |= {t: "other tensors" for t in counts if not odd[t] and frozenset(tables[t]) != most}
    good = [client for client in clients if not odd[id(client.shapes)]]
    return good, [
        Answer(c, None, f"it would share {odd[id(c.shapes)]} than the round's others")
        for c in clients
        if odd[id(c.shapes)]
    ]


def _needs_the_same(run: Run) -> bool:
    """Whether a sum needs the same tensors of all."""
    privacy = run.config.privacy
    private = privacy.secure != "none" or privacy.mechanism == "client"
    return private or not find_strategy(run.config.server.strategy).own_rule


def _unranked(name: str, shape: Shape) -> Shape:
    if is_router(name):
        return (0, *shape[1:])
    if len(shape) == 2 and (A in name or B in name):
        return (0, shape[1]) if A in name else (shape[0], 0)
    return tuple(shape)
