"""Clients run in long-lived Ray actors: processes that may die or hang without ending the run.

Messages cross as protobuf bytes; Ray never pickles an object of ours.
"""

import logging
import os
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from comigs.errors import ComigsError
from server.grids.embedded import EmbeddedGrid, late_reply, one_line
from server.grids.localray import start_local_ray
from server.grids.worker import ClientWorker, decode, encode

logger = logging.getLogger(__name__)

PULL_SECONDS = 0.2
PING_SECONDS = 10.0
DIED = "its worker process died"


@dataclass
class _Worker:
    """An actor and its task (None: idle), for a message (None: it is starting)."""

    actor: Any = None
    task: Any = None
    message: Message | None = None
    since: float = 0.0


class RayGrid(EmbeddedGrid):
    """Runs the ClientApp at `app_ref` in `workers` Ray actors.

    A client works on one message at a time, and the clients that took longest last time start
    first. A client whose worker dies, or works beyond `timeout`, gets an error reply, and the
    worker is replaced.

    Args:
        app_ref: "module:attribute" of the ClientApp, imported in each worker.
        workers: number of actors.
        threads: CPUs and torch threads of each actor.
        address: a Ray cluster to use; None starts Ray on this machine.

    Raises:
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
        self._start_args = (app_ref, threads, num_clients, state_dir)
        self._replies: dict[str, Message] = {}
        self._seconds: dict[tuple[int, str], float] = {}
        self._started_ray = not ray.is_initialized()
        env = {"OMP_NUM_THREADS": str(threads)}
        options: dict[str, Any] = {"num_cpus": threads, "max_restarts": 0, "max_task_retries": 0}
        try:
            if self._started_ray and address is None:
                start_local_ray(ray, workers * threads, env | {"PYTHONPATH": _python_path()})
            else:
                options["runtime_env"] = {"env_vars": env}
                if self._started_ray:
                    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise ComigsError(f"Ray did not start: {one_line(error)}") from error
        self._actor_class = ray.remote(**options)(ClientWorker)
        self._workers = [_Worker() for _ in range(workers)]
        for worker in self._workers:
            self._start(worker)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages that are there, waiting up to 0.2 s for the first."""
        wanted = list(message_ids)
        self._dispatch()
        at_work = {worker.task: worker for worker in self._workers if worker.task is not None}
        if at_work and self._replies.keys().isdisjoint(wanted):
            ray.wait(list(at_work), timeout=PULL_SECONDS)
        if at_work:
            for task in ray.wait(list(at_work), num_returns=len(at_work), timeout=0)[0]:
                self._finish(at_work[task])
        self._stop_late()
        self._dispatch()
        return [self._replies.pop(each) for each in wanted if each in self._replies]

    def _start(self, worker: _Worker) -> None:
        """Give `worker` a new actor, and end the one it has."""
        if worker.actor is not None:
            ray.kill(worker.actor)
        worker.actor = self._actor_class.remote()
        worker.task, worker.message = worker.actor.start.remote(*self._start_args), None

    def _dispatch(self) -> None:
        """Give each idle worker the next message; one that died idle is replaced first."""
        for worker in self._workers:
            if worker.task is None and (message := self._next()) is not None:
                try:
                    ray.get(worker.actor.ping.remote(), timeout=PING_SECONDS)
                except ray.exceptions.RayError:
                    self._start(worker)
                    continue
                del self._queue[message.metadata.message_id]
                worker.task = worker.actor.answer.remote(encode(message))
                worker.message, worker.since = message, time.monotonic()

    def _next(self) -> Message | None:
        """The message to start now: the slowest client's, and before those an unknown client's."""
        busy = {w.message.metadata.dst_node_id for w in self._workers if w.message is not None}
        heads: dict[int, Message] = {}
        for message in self._queue.values():
            heads.setdefault(message.metadata.dst_node_id, message)
        free = (message for node, message in heads.items() if node not in busy)
        return max(free, key=lambda m: self._seconds.get(_kind(m), float("inf")), default=None)

    def _finish(self, worker: _Worker) -> None:
        """Take the result of a task that is done: an answer, or how an actor's start went."""
        message = worker.message
        try:
            result = ray.get(worker.task)
        except ray.exceptions.RayError as error:
            if message is None:
                raise ComigsError(f"a worker process did not start: {one_line(error)}") from error
            logger.debug("a worker process died: %s", error)
            reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, DIED), reply_to=message)
            self._replies[message.metadata.message_id] = reply
            self._start(worker)
            return
        worker.task = worker.message = None
        if message is not None:
            data, self._seconds[_kind(message)] = result
            self._replies[message.metadata.message_id] = decode(data)
        elif result:
            raise ComigsError(f"a worker process cannot load {self._start_args[0]}: {result}")

    def _stop_late(self) -> None:
        """Replace the workers that have been at one message for too long."""
        now = time.monotonic()
        for worker in self._workers:
            if self.timeout and worker.message and now - worker.since > self.timeout:
                reply = late_reply(worker.message, self.timeout)
                self._replies[worker.message.metadata.message_id] = reply
                self._start(worker)

    def _give_up(self, message_ids: Collection[str]) -> None:
        super()._give_up(message_ids)
        for worker in self._workers:
            if worker.message and worker.message.metadata.message_id in message_ids:
                self._start(worker)

    def close(self) -> None:
        """End the workers, and Ray when this grid started it."""
        super().close()
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers = []
        if self._started_ray:
            ray.shutdown()


def _kind(message: Message) -> tuple[int, str]:
    """What durations are remembered by."""
    return message.metadata.dst_node_id, message.metadata.message_type


def _python_path() -> str:
    """PYTHONPATH with which a worker imports what this process can."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)
