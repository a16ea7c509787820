"""What the grids without a SuperLink share: identities, contexts, replies, send-and-receive.

Flower internals are touched in this folder only, as seen in flwr 1.41: a `Message` can only be
created once `TaskIdentity` holds the run, node and task of the process (a reply takes all three
from its message), and the sender fills in `message_id`, for which `Metadata` has no setter.
"""

import itertools
import logging
import time
from abc import abstractmethod
from collections.abc import Collection, Iterable
from typing import Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from comigs.errors import BadInput

logger = logging.getLogger(__name__)

RUN_ID = 1
SERVER_NODE_ID = 0


def client_context(node_id: int, num_clients: int, state_dir: str) -> Context:
    """The context of one client; its partition-id is `node_id - 1`."""
    return Context(
        run_id=RUN_ID,
        node_id=node_id,
        node_config={
            "partition-id": node_id - 1,
            "num-partitions": num_clients,
            "state-dir": state_dir,
        },
        state=RecordDict(),
        run_config={},
    )


def one_line(error: BaseException) -> str:
    """`TypeName: message`, whatever line breaks the message holds."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def run_client(app: ClientApp, message: Message, context: Context) -> Message:
    """The reply of `app`, or an error reply when it raises or returns something else."""
    try:
        reply = app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            raise ValueError("the ClientApp returned a Message made without reply_to=message")
    except Exception as error:
        return failed_reply(message, error)
    return reply


def failed_reply(message: Message, error: Exception) -> Message:
    """The error reply of a client that raised `error`."""
    logger.debug("node %d failed", message.metadata.dst_node_id, exc_info=error)
    reason = one_line(error)
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def late_reply(message: Message, timeout: float) -> Message:
    """The error reply of a client that was given up after `timeout` seconds."""
    reason = f"did not answer within {timeout:g} s (server.round_timeout)"
    return Message(Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason), reply_to=message)


class EmbeddedGrid(Grid):
    """A grid whose clients run under this process, with node ids 1..num_clients.

    Subclasses run what `push_messages` puts into `_queue` (message id -> message, in push order).
    Use it in a `with` block.

    Args:
        num_clients: how many clients there are; an unused one costs nothing.
        state_dir: folder that clients receive as `state-dir` in their node config.
        timeout: seconds that one client may work on one message; None for no limit.

    Raises:
        BadInput: `num_clients` or `timeout` is not positive.
    """

    def __init__(self, num_clients: int, state_dir: str, timeout: float | None) -> None:
        if num_clients < 1:
            raise BadInput(f"clients={num_clients}: at least one client is needed")
        if timeout is not None and timeout <= 0:
            raise BadInput(f"server.round_timeout={timeout:g}: use seconds above 0, or null")
        self.num_clients = num_clients
        self.state_dir = state_dir
        self.timeout = timeout
        self._queue: dict[str, Message] = {}
        self._numbers = itertools.count(1)
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
        ids = []
        for message in messages:
            if not 1 <= (node_id := message.metadata.dst_node_id) <= self.num_clients:
                raise ValueError(f"no client has node id {node_id}; ids are 1..{self.num_clients}")
            ids.append(str(next(self._numbers)))
            message.metadata.__dict__["_message_id"] = ids[-1]
            self._queue[ids[-1]] = message
        return ids

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
        for message_id in message_ids:
            self._queue.pop(message_id, None)

    def close(self) -> None:
        """Free what the grid holds; it cannot be used afterwards."""
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
