"""Which workers the ray engine has, whose clients they run, and the node that has room for one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from comigs.config.pools import PoolConfig, RayConfig
from comigs.errors import BadInput
from comigs.schema.build import suggest

DEFAULT = "default"  # pool of the clients whose device class has none of its own

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Pool:
    """Workers of one kind.

    Attributes:
        name: device class, or "default".
        workers: how many to start.
        demand: Ray resources of one worker, e.g. {"CPU": 1.0}.
        clients: numbers of the clients that it runs.
    """

    name: str
    workers: int
    demand: Resources
    clients: frozenset[int]


def make_pools(
    ray: RayConfig, classes: Sequence[str] | None, num_clients: int, workers: int, threads: int
) -> list[Pool]:
    """The pools that have clients, those that are hardest to place first.

    Args:
        classes: device class of each client; None when there are no device classes.
        workers: of a pool that does not say how many.
        threads: CPUs of a worker where its pool does not say how many.

    Raises:
        BadInput: a pool's name is no device class of a client.
    """
    classes = classes or [DEFAULT] * num_clients
    for name in ray.pools:
        if name != DEFAULT and name not in classes:
            known = sorted({*classes, DEFAULT})
            hint = suggest(name, known) or f"; known: {', '.join(known)}"
            raise BadInput(f"ray.pools.{name}: no client is of this device class{hint}")
    members: dict[str, set[int]] = {}
    for client, name in enumerate(classes):
        members.setdefault(name if name in ray.pools else DEFAULT, set()).add(client)
    pools = []
    for name, clients in members.items():
        own = ray.pools.get(name, PoolConfig())
        demand = {"CPU": own.cpus or float(threads), "GPU": own.gpus, **own.resources}
        demand = {resource: amount for resource, amount in demand.items() if amount}
        pools.append(Pool(name, own.workers or workers, demand, frozenset(clients)))
    return sorted(pools, key=lambda pool: (len(pool.demand), pool.demand["CPU"]), reverse=True)


def total(pools: Iterable[Pool]) -> dict[str, float]:
    """What all workers take together."""
    summed: dict[str, float] = {}
    for pool in pools:
        for resource, amount in pool.demand.items():
            summed[resource] = summed.get(resource, 0.0) + amount * pool.workers
    return summed


def place(
    demand: Resources,
    nodes: Mapping[str, Resources],
    taken: Iterable[tuple[str, Resources]],
    avoid: str = "",
) -> str | None:
    """The node on which a worker fits, or None: the one with the most free CPUs.

    Args:
        demand: what the worker takes.
        nodes: what each node has in all.
        taken: node and demand of the workers there are.
        avoid: a node to take only when no other has room.
    """
    free = {node: dict(resources) for node, resources in nodes.items()}
    for node, used in taken:
        for resource, amount in used.items():
            if node in free:
                free[node][resource] = free[node].get(resource, 0.0) - amount
    fitting = [
        node
        for node, left in free.items()
        if all(left.get(resource, 0.0) >= amount - 1e-6 for resource, amount in demand.items())
    ]
    return max(fitting, key=lambda node: (node != avoid, free[node].get("CPU", 0.0)), default=None)


def words(demand: Resources) -> str:
    """`2 CPU, 0.5 GPU`."""
    return ", ".join(f"{amount:g} {resource}" for resource, amount in demand.items())
