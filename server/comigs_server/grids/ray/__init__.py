"""Clients run in long-lived Ray actors: processes that may die or hang without ending the run.

Messages cross as protobuf bytes, and the state of a client on another node as safetensors: Ray
never pickles an object of ours.
"""

import logging
import math
import os
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import ray
from flwr.app import Message

from comigs.config.pools import RayConfig
from comigs.errors import BadInput, ComigsError, one_line
from comigs_clients.wire import decode, encode
from comigs_server.grids.backlog import Job
from comigs_server.grids.client import Together, dead_reply, failed_reply, late_reply
from comigs_server.grids.embedded import EmbeddedGrid
from comigs_server.grids.pools import make_pools, total
from comigs_server.grids.ray.workforce import Worker, Workforce, living_nodes
from comigs_server.grids.raystart import connect
from comigs_server.grids.shipping import needed_state, save_state

logger = logging.getLogger(__name__)

PULL_SECONDS = 0.2
PING_SECONDS = 10.0


class RayGrid(EmbeddedGrid):
    """Runs the ClientApp at `app_ref` in Ray actors, with one pool of them per device class.

    A client works on one message at a time, and the clients that took longest last time start
    first. A client whose worker is lost is redone once, in another worker; when that is lost too,
    or when the client works beyond `timeout`, it gets an error reply. A group is redone once, and
    then its clients one by one. Lost workers are replaced where there is room. `Context.state`
    starts empty at each message.

    Args:
        app_ref: "module:attribute" of the ClientApp, imported in each worker.
        workers: number of actors of a pool that does not say.
        threads: torch threads of each actor, and its CPUs where its pool does not say.
        config: the cluster to use, and the pools.
        classes: device class of each client; None when there are none.
        together: as of `EmbeddedGrid`; what it finds alike must be clients of one pool.

    Raises:
        BadInput: `workers` is not positive, a pool has no clients, or the workers do not fit.
        ComigsError: Ray does not start; from `pull_messages`, a pool is left without workers.
    """

    def __init__(
        self,
        app_ref: str,
        num_clients: int,
        state_dir: str,
        workers: int,
        threads: int,
        timeout: float | None = None,
        config: RayConfig | None = None,
        classes: Sequence[str] | None = None,
        together: Together | None = None,
    ) -> None:
        super().__init__(num_clients, state_dir, timeout, together)
        if workers < 1:
            raise BadInput(f"engine.workers={workers}: at least one worker is needed")
        config = config or RayConfig()
        pools = make_pools(config, classes, num_clients, workers, threads)
        everyone = frozenset(self.get_node_ids())
        self._others = {pool.name: everyone - {i + 1 for i in pool.clients} for pool in pools}
        self._app_ref = app_ref
        self._replies: dict[str, Message] = {}
        self._redone: set[Job] = set()
        self._owns_ray = not ray.is_initialized()
        options = connect(ray, config.address, total(pools), threads)
        alone = self._owns_ray and config.address is None
        self._home = ray.get_runtime_context().get_node_id()
        start_args = (app_ref, threads, num_clients, state_dir, os.getcwd())
        try:
            self._force = Workforce(pools, options, start_args, alone)
        except BaseException:
            self._shut_down()
            raise

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that are there, waiting up to 0.2 s for the first."""
        wanted = list(message_ids)
        self._dispatch()
        if at_work := {w.task: w for w in self._force.workers if w.task is not None}:
            here = any(each in self._replies for each in wanted)
            ray.wait(list(at_work), timeout=0.0 if here else PULL_SECONDS)
            for task in ray.wait(list(at_work), num_returns=len(at_work), timeout=0.0)[0]:
                self._finish(at_work[task])
        for worker in list(self._force.workers):
            if worker.job and time.monotonic() > worker.deadline:
                for message in worker.job:
                    self._answer(late_reply(message, self.timeout or 0.0))
                self._force.replace(worker)
        self._force.look_after_starting()
        self._dispatch()
        return [self._replies.pop(each) for each in wanted if each in self._replies]

    def _answer(self, reply: Message) -> None:
        self._replies[reply.metadata.reply_to_message_id] = reply

    def _dispatch(self) -> None:
        """Give each idle worker the next job; one that died idle is replaced first."""
        for worker in list(self._force.workers):
            at_work = (message for w in self._force.workers for message in w.job)
            busy = {message.metadata.dst_node_id for message in at_work}
            job = self._backlog.slowest(busy | self._others[worker.pool.name])
            if worker.task is None and job is not None:
                try:
                    ray.get(worker.actor.ping.remote(), timeout=PING_SECONDS)
                except ray.exceptions.RayError as error:
                    self._force.replace(worker, avoid=_where_to_avoid(worker, error))
                    continue
                self._backlog.take(job)
                away = worker.node != self._home
                states = [needed_state(Path(self.state_dir), m) for m in job] if away else []
                ref = self.together.answer_ref if self.together else ""
                worker.task = worker.actor.answer.remote([encode(m) for m in job], states, ref)
                worker.job = job
                worker.deadline = time.monotonic() + (self._allowed(job) or math.inf)

    def _finish(self, worker: Worker) -> None:
        """Take the result of a task that is done: answers, or how an actor's start went."""
        job = worker.job
        try:
            result = ray.get(worker.task)
            if not job:
                worker.node = ray.get(worker.actor.node.remote(), timeout=PING_SECONDS)
        except ray.exceptions.RayError as error:
            self._lose(worker, error)
            return
        worker.task, worker.job = None, ()
        if job:
            replies, seconds, archives = result
            self._backlog.took(job, seconds)
            for message, encoded, archive in zip_longest(job, replies, archives):
                self._answer(self._saved(decode(encoded), message, archive))
        elif result:
            raise ComigsError(f"a worker process cannot load {self._app_ref}: {result}")
        worker.up = True

    def _saved(self, reply: Message, message: Message, archive: bytes | None) -> Message:
        """`reply`, once the state that its client has on another node is here too."""
        try:
            if archive is not None:
                save_state(Path(self.state_dir), message, archive)
        except (ComigsError, ValueError) as error:
            return failed_reply(message, error)
        return reply

    def _lose(self, worker: Worker, error: Exception) -> None:
        """Replace a lost worker; its job is redone, unless that has been tried already."""
        avoid = _where_to_avoid(worker, error)
        job = worker.job
        if not job and not avoid:
            raise ComigsError(f"a worker process did not start: {one_line(error)}") from error
        if job:
            nodes = ", ".join(str(message.metadata.dst_node_id) for message in job)
            logger.info("node %s lost its worker: %s", nodes, error)
            if job not in self._redone:
                self._redone.add(job)
                self._backlog.put_back(job)
            elif len(job) > 1:
                self._redone |= {(message,) for message in job}
                self._backlog.put_back(*((message,) for message in job))
            else:
                self._answer(dead_reply(job[0]))
        self._force.replace(worker, avoid)

    def _give_up(self, message_ids: Collection[str]) -> None:
        super()._give_up(message_ids)
        for worker in list(self._force.workers):
            if any(message.metadata.message_id in message_ids for message in worker.job):
                self._force.replace(worker)

    def close(self) -> None:
        """End the workers, and Ray when this grid started it."""
        self._force.end()
        self._shut_down()

    def _shut_down(self) -> None:
        if self._owns_ray:
            ray.shutdown()


def _where_to_avoid(worker: Worker, error: Exception) -> str:
    """The worker's node when that is gone, or cannot be reached; Ray takes a while to tell."""
    unreachable = isinstance(error, ray.exceptions.ActorUnavailableError)
    return worker.node if unreachable or worker.node not in living_nodes() else ""
