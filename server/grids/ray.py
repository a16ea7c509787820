"""Clients run in long-lived Ray actors: processes that may die or hang without ending the run.

Messages cross as protobuf bytes; Ray never pickles an object of ours.
"""

import logging
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import ray
from flwr.app import Message

from comigs.errors import BadInput, ComigsError
from server.grids.client import dead_reply, late_reply, one_line
from server.grids.embedded import EmbeddedGrid
from server.grids.raystart import connect
from server.grids.worker import ClientWorker, decode, encode

logger = logging.getLogger(__name__)

PULL_SECONDS = 0.2
PING_SECONDS = 10.0


@dataclass
class _Worker:
    """An actor and its task (None: idle), for a message (None: starting) and until when."""

    actor: Any = None
    task: Any = None
    message: Message | None = None
    deadline: float = math.inf


class RayGrid(EmbeddedGrid):
    """Runs the ClientApp at `app_ref` in `workers` Ray actors.

    A client works on one message at a time, and the clients that took longest last time start
    first. A client whose worker dies, or works beyond `timeout`, gets an error reply, and the
    worker is replaced. `Context.state` starts empty at each message.

    Args:
        app_ref: "module:attribute" of the ClientApp, imported in each worker.
        workers: number of actors.
        threads: CPUs and torch threads of each actor.
        address: a Ray cluster to use; None starts Ray on this machine.

    Raises:
        BadInput: `workers` is not positive.
        ComigsError: Ray does not start; from `pull_messages`, a worker does not start.
    """

    def __init__(
        self,
        app_ref: str,
        num_clients: int,
        state_dir: str,
        workers: int,
        threads: int,
        timeout: float | None = None,
        address: str | None = None,
    ) -> None:
        super().__init__(num_clients, state_dir, timeout)
        if workers < 1:
            raise BadInput(f"engine.workers={workers}: at least one worker is needed")
        self._start_args = (app_ref, threads, num_clients, state_dir)
        self._replies: dict[str, Message] = {}
        self._owns_ray = not ray.is_initialized()
        self._actor_class = ray.remote(**connect(ray, address, workers, threads))(ClientWorker)
        self._workers = [_Worker() for _ in range(workers)]
        for worker in self._workers:
            self._restart(worker)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that are there, waiting up to 0.2 s for the first."""
        wanted = list(message_ids)
        self._dispatch()
        if at_work := {w.task: w for w in self._workers if w.task is not None}:
            here = any(each in self._replies for each in wanted)
            ray.wait(list(at_work), timeout=0.0 if here else PULL_SECONDS)
            for task in ray.wait(list(at_work), num_returns=len(at_work), timeout=0.0)[0]:
                self._finish(at_work[task])
        for worker in self._workers:
            if worker.message is not None and time.monotonic() > worker.deadline:
                self._answer(late_reply(worker.message, self.timeout or 0.0))
                self._restart(worker)
        self._dispatch()
        return [self._replies.pop(each) for each in wanted if each in self._replies]

    def _answer(self, reply: Message) -> None:
        self._replies[reply.metadata.reply_to_message_id] = reply

    def _restart(self, worker: _Worker) -> None:
        """Give `worker` a new actor, and end the one it has."""
        if worker.actor is not None:
            ray.kill(worker.actor)
        worker.actor = self._actor_class.remote()
        worker.task, worker.message = worker.actor.start.remote(*self._start_args), None

    def _dispatch(self) -> None:
        """Give each idle worker the next message; one that died idle is replaced first."""
        for worker in self._workers:
            busy = {w.message.metadata.dst_node_id for w in self._workers if w.message is not None}
            if worker.task is None and (message := self._backlog.slowest(busy)) is not None:
                try:
                    ray.get(worker.actor.ping.remote(), timeout=PING_SECONDS)
                except ray.exceptions.RayError:
                    self._restart(worker)
                    continue
                self._backlog.remove([message.metadata.message_id])
                worker.task = worker.actor.answer.remote(encode(message))
                worker.message = message
                worker.deadline = time.monotonic() + (self.timeout or math.inf)

    def _finish(self, worker: _Worker) -> None:
        """Take the result of a task that is done: an answer, or how an actor's start went."""
        message = worker.message
        try:
            result = ray.get(worker.task)
        except ray.exceptions.RayError as error:
            if message is None:
                raise ComigsError(f"a worker process did not start: {one_line(error)}") from error
            logger.debug("a worker process died: %s", error)
            self._answer(dead_reply(message))
            self._restart(worker)
            return
        worker.task = worker.message = None
        if message is not None:
            encoded, seconds = result
            self._backlog.took(message, seconds)
            self._answer(decode(encoded))
        elif result:
            raise ComigsError(f"a worker process cannot load {self._start_args[0]}: {result}")

    def _give_up(self, message_ids: Collection[str]) -> None:
        super()._give_up(message_ids)
        for worker in self._workers:
            if worker.message is not None and worker.message.metadata.message_id in message_ids:
                self._restart(worker)

    def close(self) -> None:
        """End the workers, and Ray when this grid started it."""
        while self._workers:
            ray.kill(self._workers.pop().actor)
        if self._owns_ray:
            ray.shutdown()
