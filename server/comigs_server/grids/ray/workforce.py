"""The Ray actors of a grid: where they start, and what happens when one of them is lost."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from comigs.errors import BadInput, ComigsError
from comigs_server.grids.backlog import Job
from comigs_server.grids.pools import DEFAULT, Pool, Resources, place, words
from comigs_server.grids.worker import ClientWorker

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between looks at the nodes, while a worker starts
START_SECONDS = 300.0  # for a pool to have its first worker up, where Ray is not ours alone


class Actor(ClientWorker):
    """A worker that says where it is."""

    def node(self) -> str:
        """Ray's id of this node."""
        return str(ray.get_runtime_context().get_node_id())


@dataclass(eq=False)
class Worker:
    """An actor, where it is (or shall be), and its task (None: idle), for a job or to start."""

    pool: Pool
    node: str
    actor: Any
    task: Any
    deadline: float
    up: bool = False
    job: Job = ()


class Workforce:
    """The workers of all pools.

    Args:
        options: of every actor, e.g. its environment.
        start_args: what `ClientWorker.start` gets.
        alone: whether nobody else uses this Ray, so that no worker waits for what others hold.

    Raises:
        BadInput: there is no room for a worker: Ray would wait for it for ever.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        options: Mapping[str, Any],
        start_args: Sequence[Any],
        alone: bool,
    ) -> None:
        self.workers: list[Worker] = []
        self._patience = math.inf if alone else START_SECONDS
        self._options, self._start_args = options, start_args
        self._next_look = 0.0
        for pool in pools:
            for number in range(pool.workers):
                if not self._add(pool):
                    self.end()
                    raise BadInput(_no_room(pool, number))

    def _add(self, pool: Pool, avoid: str = "") -> bool:
        """Start a worker, on the node `avoid` only if no other has room. False: none has."""
        taken = [(worker.node, worker.pool.demand) for worker in self.workers]
        node = place(pool.demand, living_nodes(), taken, avoid)
        if node is None:
            return False
        options = {**self._options, **_options(pool.demand, node)}
        actor: Any = ray.remote(Actor).options(**options).remote()
        task = actor.start.remote(*self._start_args)
        deadline = time.monotonic() + self._patience
        self.workers.append(Worker(pool, node, actor, task, deadline))
        return True

    def replace(self, worker: Worker, avoid: str = "") -> None:
        """End a worker and start another one where there is room; `avoid` is the last choice.

        Raises:
            ComigsError: there is no room, and it was the last of its pool.
        """
        self.workers.remove(worker)
        ray.kill(worker.actor)
        if self._add(worker.pool, avoid):
            return
        left, need = len(self._colleagues(worker)), words(worker.pool.demand)
        if not left:
            raise ComigsError(
                f"the ray pool {worker.pool.name!r} has lost its last worker, and no node that is "
                f"left has room for {need}"
            )
        logger.warning("the ray pool %r goes on with %d workers", worker.pool.name, left)

    def look_after_starting(self) -> None:
        """Move workers whose node died before they were up.

        Raises:
            ComigsError: no worker of a pool comes up, because others use the resources.
        """
        starting = [worker for worker in self.workers if not worker.up]
        if not starting or time.monotonic() < self._next_look:
            return
        nodes, now = living_nodes(), time.monotonic()
        self._next_look = now + LOOK_SECONDS
        for worker in starting:
            if worker.node not in nodes:
                self.replace(worker)
            elif now > worker.deadline and not any(w.up for w in self._colleagues(worker)):
                raise ComigsError(
                    f"no worker of the ray pool {worker.pool.name!r} has started within "
                    f"{self._patience:g} s; is {words(worker.pool.demand)} in use by others?"
                )

    def _colleagues(self, worker: Worker) -> list[Worker]:
        return [other for other in self.workers if other.pool == worker.pool]

    def end(self) -> None:
        """End all workers."""
        while self.workers:
            ray.kill(self.workers.pop().actor)


def living_nodes() -> dict[str, Resources]:
    """What each living node has in all, by Ray's id of it."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _options(demand: Resources, node: str) -> dict[str, Any]:
    """Ray's options for an actor on `node`, or elsewhere while that is busy with others' work."""
    where = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
    custom = {name: amount for name, amount in demand.items() if name not in ("CPU", "GPU")}
    return {
        "num_cpus": demand["CPU"],
        "num_gpus": demand.get("GPU", 0),
        "resources": custom,
        "scheduling_strategy": where,
    }


def _no_room(pool: Pool, placed: int) -> str:
    key = "engine.workers" if pool.name == DEFAULT else f"ray.pools.{pool.name}"
    there = "; ".join(words(node) for node in living_nodes().values())
    return (
        f"{key}: {pool.workers} workers with {words(pool.demand)} each do not fit beside the other "
        f"pools, only {placed} do; Ray's nodes have {there}"
    )
