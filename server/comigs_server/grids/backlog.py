"""The messages that wait for a client, and which of them should start next."""

import itertools
import math
from collections.abc import Collection, Iterator

from flwr.app import Message


class Backlog:
    """Waiting messages in push order; it gives them ids, and remembers how long clients take."""

    def __init__(self) -> None:
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._seconds: dict[tuple[int, str], float] = {}

    def add(self, message: Message) -> str:
        """Queue a message. Returns its new id (flwr 1.41: `Metadata` has no setter for it)."""
        message_id = str(next(self._numbers))
        message.metadata.__dict__["_message_id"] = message_id
        self._waiting[message_id] = message
        return message_id

    def put_back(self, message: Message) -> None:
        """Queue a message again, before all others and with the id it has."""
        self._waiting = {message.metadata.message_id: message, **self._waiting}

    def remove(self, message_ids: Collection[str]) -> None:
        """Forget those of these messages that still wait."""
        for message_id in message_ids:
            self._waiting.pop(message_id, None)

    def first(self, message_ids: Collection[str]) -> Message | None:
        """The message that waits longest among these."""
        return next(self.waiting(message_ids), None)

    def waiting(self, message_ids: Collection[str]) -> Iterator[Message]:
        """These messages, as far as they wait, in push order."""
        return (m for key, m in list(self._waiting.items()) if key in message_ids)

    def slowest(self, busy: Collection[int]) -> Message | None:
        """The message of the node that took longest last time; unknown nodes come before.

        A node's messages stay in push order, and a node in `busy` gets none.
        """
        heads: dict[int, Message] = {}
        for message in self._waiting.values():
            heads.setdefault(message.metadata.dst_node_id, message)
        free = [message for node, message in heads.items() if node not in busy]
        return max(free, key=lambda m: self._seconds.get(_work(m), math.inf), default=None)

    def took(self, message: Message, seconds: float) -> None:
        """Remember how long this kind of message took at its node."""
        self._seconds[_work(message)] = seconds


def _work(message: Message) -> tuple[int, str]:
    return message.metadata.dst_node_id, message.metadata.message_type
