"""What the grids without a SuperLink share: who is who, the backlog, send-and-receive.

As seen in flwr 1.41, a `Message` can only be created once `TaskIdentity` (internal to Flower)
holds the run, node and task of the process. A reply takes all three from its message, so that
worker processes need none.
"""

import time
from abc import abstractmethod
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Self

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from comigs.errors import BadInput
from comigs_server.grids.backlog import Backlog, Job
from comigs_server.grids.client import RUN_ID, Together, client_context

SERVER_NODE_ID = 0


class EmbeddedGrid(Grid):
    """A grid whose clients run under this process, with node ids 1..num_clients.

    Subclasses run what `push_messages` puts into the backlog. Use it in a `with` block.

    Args:
        num_clients: how many clients there are; an unused one costs nothing.
        state_dir: folder that clients receive as `state-dir` in their node config.
        timeout: seconds that one client may work on one message; None for no limit.
        together: answers groups of the messages of one `push_messages`: the first one and the next
            ones like it. A group may take as long as its clients one after the other.

    Raises:
        BadInput: `num_clients` or `timeout` is not positive.
    """

    def __init__(
        self,
        num_clients: int,
        state_dir: str,
        timeout: float | None,
        together: Together | None = None,
    ) -> None:
        if num_clients < 1:
            raise BadInput(f"clients={num_clients}: at least one client is needed")
        if timeout is not None and timeout <= 0:
            raise BadInput(f"server.round_timeout={timeout:g}: use seconds above 0, or null")
        self.num_clients = num_clients
        self.state_dir = state_dir
        self.timeout = timeout
        self.together = together
        self._backlog = Backlog()
        self.set_run(Run.create_empty(RUN_ID))
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_NODE_ID, 0

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str,
        ttl: float | None = None,
    ) -> Message:  # fmt: skip
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        return list(range(1, self.num_clients + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue the messages and fill in their ids, which are returned in the same order."""
        messages = list(messages)
        for message in messages:
            if not 1 <= (node_id := message.metadata.dst_node_id) <= self.num_clients:
                raise ValueError(f"no client has node id {node_id}; ids are 1..{self.num_clients}")
        ids = [self._backlog.number(message) for message in messages]
        for job in self._jobs(messages):
            self._backlog.add(job)
        return ids

    def _jobs(self, messages: Sequence[Message]) -> list[Job]:
        """Those that are alike in groups of `together.size`, in the order of their first ones."""
        if self.together is None:
            return [(message,) for message in messages]
        jobs: list[list[Message]] = []
        filling: dict[Hashable, list[Message]] = {}
        for message in messages:
            node = message.metadata.dst_node_id
            context = client_context(node, self.num_clients, self.state_dir)
            key = self.together.alike(message, context)
            job = filling.get(key)
            if key is None or job is None or len(job) == self.together.size:
                job = filling[key] = []
                jobs.append(job)
            job.append(message)
        return [tuple(job) for job in jobs]

    def _allowed(self, job: Job) -> float | None:
        """Seconds that a job may take; None for no limit."""
        return self.timeout and self.timeout * len(job)

    @abstractmethod
    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]: ...

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push, then pull until all have answered or `timeout` seconds have gone by.

        What has no answer by then is given up: it is neither run nor answered later.
        """
        waiting = set(self.push_messages(messages))
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and time.monotonic() < deadline:
            answered = self.pull_messages(waiting)
            waiting -= {reply.metadata.reply_to_message_id for reply in answered}
            replies += answered
        self._give_up(waiting)
        return replies

    def _give_up(self, message_ids: Collection[str]) -> None:
        self._backlog.give_up(message_ids)

    def close(self) -> None:
        """Free what the grid holds; it cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
