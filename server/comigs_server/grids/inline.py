"""Clients run one after the other in this process: no start-up cost, easy to debug."""

import itertools
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

from flwr.app import Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from comigs_server.grids.client import Together, client_context, late_reply, run_client, run_clients
from comigs_server.grids.embedded import EmbeddedGrid


class ClientTimeoutError(BaseException):
    """Raised inside a client that is out of time; `except Exception` does not catch it."""


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `ClientTimeoutError` in the block after `seconds`.

    It reaches Python code only: one long call into C is not cut short, but ends late.
    """
    if seconds is None:
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> Never:
        raise ClientTimeoutError

    previous = signal.signal(signal.SIGALRM, give_up)
    try:  # two levels: the alarm may still ring while the inner `finally` runs
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)


def _own(message: Message) -> Message:
    """`message` with records of its own, since strategies send one content to all clients."""
    copies = {name: record.copy() for name, record in message.content.items()}
    return make_message(message.metadata, RecordDict(copies))


class InlineGrid(EmbeddedGrid):
    """Runs `client_app` in this process, one message at each `pull_messages`.

    The clients' contexts are made when first used, and kept.

    Args:
        together: answers groups of messages, each in one `pull_messages`. A group is made of the
            message that waits longest and the next ones like it; it may take as long as its
            clients one after the other.

    Raises:
        ValueError: a `timeout` outside the main thread, where no signal can interrupt a client.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        state_dir: str,
        timeout: float | None = None,
        together: Together | None = None,
    ) -> None:
        super().__init__(num_clients, state_dir, timeout)
        if timeout is not None and threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "server.round_timeout works with engine=inline in the main thread only; "
                "set it to null, or use engine=ray"
            )
        self._app, self._together = client_app, together
        self._contexts: dict[int, Context] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the next queued message, or group, of these and reply; [] when none is queued."""
        group = self._group(set(message_ids))
        self._backlog.remove([message.metadata.message_id for message in group])
        if not group:
            return []
        contexts = [self._context(message) for message in group]
        messages = [_own(message) for message in group]
        try:
            with _time_limit(self.timeout and self.timeout * len(group)):
                if self._together and len(group) > 1:
                    return run_clients(self._together, messages, contexts)
                return [run_client(self._app, messages[0], contexts[0])]
        except ClientTimeoutError:
            return [late_reply(message, self.timeout or 0.0) for message in group]

    def _group(self, message_ids: set[str]) -> list[Message]:
        """The message of these that waits longest, and those to answer with it."""
        waiting = self._backlog.waiting(message_ids)
        if not (first := next(waiting, None)) or not self._together:
            return [first] if first else []
        alike = self._together.alike
        if (key := alike(first, self._context(first))) is None:
            return [first]
        others = (message for message in waiting if alike(message, self._context(message)) == key)
        return [first, *itertools.islice(others, self._together.size - 1)]

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        if node_id not in self._contexts:
            self._contexts[node_id] = client_context(node_id, self.num_clients, self.state_dir)
        return self._contexts[node_id]
