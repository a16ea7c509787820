"""Clients run one after the other in this process: no start-up cost, easy to debug."""

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
    """Runs `client_app` in this process, one message or group at each `pull_messages`.

    The clients' contexts are made when first used, and kept.

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
        super().__init__(num_clients, state_dir, timeout, together)
        if timeout is not None and threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "server.round_timeout works with engine=inline in the main thread only; "
                "set it to null, or use engine=ray"
            )
        self._app = client_app
        self._contexts: dict[int, Context] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the next queued message, or group, of these and reply; [] when none is queued."""
        job = self._backlog.first(set(message_ids))
        if not job:
            return []
        self._backlog.take(job)
        contexts = [self._context(message) for message in job]
        messages = [_own(message) for message in job]
        try:
            with _time_limit(self._allowed(job)):
                if self.together and len(job) > 1:
                    return run_clients(self.together.answer_ref, messages, contexts)
                return [run_client(self._app, messages[0], contexts[0])]
        except ClientTimeoutError:
            return [late_reply(message, self.timeout or 0.0) for message in job]

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        if node_id not in self._contexts:
            self._contexts[node_id] = client_context(node_id, self.num_clients, self.state_dir)
        return self._contexts[node_id]
