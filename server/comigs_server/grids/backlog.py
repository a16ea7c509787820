"""The messages that wait for a client, and which of them should start next.

Messages that are answered together are one job; most jobs are a single message.
"""

import itertools
import math
from collections.abc import Collection

from flwr.app import Message

Job = tuple[Message, ...]


class Backlog:
    """Waiting jobs in push order; it gives messages ids, and remembers how long clients take."""

    def __init__(self) -> None:
        self._waiting: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._seconds: dict[tuple[int, str], float] = {}

    def number(self, message: Message) -> str:
        """Give a message its id (flwr 1.41: `Metadata` has no setter for it), and return it."""
        message_id = str(next(self._numbers))
        message.metadata.__dict__["_message_id"] = message_id
        return message_id

    def add(self, job: Job) -> None:
        """Queue a job of numbered messages of different nodes."""
        self._waiting[job[0].metadata.message_id] = job

    def put_back(self, *jobs: Job) -> None:
        """Queue jobs again, before all others and with the ids they have."""
        self._waiting = {job[0].metadata.message_id: job for job in jobs} | self._waiting

    def take(self, job: Job) -> None:
        """It waits no more."""
        del self._waiting[job[0].metadata.message_id]

    def give_up(self, message_ids: Collection[str]) -> None:
        """Forget those of these messages that still wait."""
        jobs = [
            tuple(m for m in job if m.metadata.message_id not in message_ids)
            for job in self._waiting.values()
        ]
        self._waiting = {job[0].metadata.message_id: job for job in jobs if job}

    def first(self, message_ids: Collection[str]) -> Job | None:
        """The job that waits longest among those with one of these messages."""
        for job in self._waiting.values():
            if any(message.metadata.message_id in message_ids for message in job):
                return job
        return None

    def slowest(self, busy: Collection[int]) -> Job | None:
        """The job with the node that took longest last time; unknown nodes come before.

        A node's messages stay in push order, and a node in `busy` gets none.
        """
        seen, free = set(busy), []
        for job in self._waiting.values():
            nodes = {message.metadata.dst_node_id for message in job}
            if not nodes & seen:
                free.append(job)
            seen |= nodes
        return max(free, key=self._longest, default=None)

    def took(self, job: Job, seconds: float) -> None:
        """Remember how long this kind of message took at the nodes of a job."""
        for message in job:
            self._seconds[_work(message)] = seconds

    def _longest(self, job: Job) -> float:
        return max(self._seconds.get(_work(message), math.inf) for message in job)


def _work(message: Message) -> tuple[int, str]:
    return message.metadata.dst_node_id, message.metadata.message_type
