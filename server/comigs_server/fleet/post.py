"""Messages to nodes behind a SuperLink: what is lost on the way is sent again.

Flower gives a message to a node once. A node that is killed with it in hand, or a SuperLink that
is killed with the reply, leaves a waiting server behind; training the same round again gives the
same bytes, so whatever comes first is the answer.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from comigs_server.grids.superlink import Outcome

LOST = (
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
)
LOSSES = 3  # of one message, and its node is given up
AWAY_SECONDS = 60.0  # until a node that has gone is given up; Flower took as long to notice
PULL_SECONDS = 0.5  # between looks for replies
LOOK_SECONDS = 2.0  # between looks at the nodes
OUTAGE_SECONDS = 5.0  # a SuperLink that answers later than this may have been started anew


class Post:
    """Messages on their way, one to each node at a time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._drafts: dict[int, Message] = {}  # by node: what waits for an answer
        self._ends: dict[int, tuple[float, str]] = {}  # by node: when it is given up, and why
        self._nodes_of: dict[str, int] = {}  # by id of each message sent
        self._losses: dict[int, int] = {}
        self._lost: dict[int, tuple[float, str]] = {}  # by node: since when, and why
        self._activated: dict[int, str] = {}
        self._settled: deque[tuple[int, Outcome]] = deque()
        self._look = 0.0  # when to look at the nodes again

    @property
    def under_way(self) -> set[int]:
        """Nodes whose outcome `outcomes` has still to yield."""
        return set(self._drafts) | {node for node, _ in self._settled}

    def exchange(
        self, messages: Sequence[Message], timeout: float | None
    ) -> Iterator[tuple[int, Outcome]]:
        """Send messages, and yield the outcome of each.

        Args:
            timeout: seconds to wait for all of them; None: for ever.
        """
        self.send(messages, timeout)
        yield from self.outcomes()

    def send(self, messages: Sequence[Message], timeout: float | None) -> None:
        """Send messages to nodes that have none under way.

        Args:
            timeout: seconds to wait for each of them; None: for ever.
        """
        end = time.monotonic() + timeout if timeout else math.inf
        drafts = {message.metadata.dst_node_id: message for message in messages}
        self._drafts |= drafts
        self._ends |= dict.fromkeys(drafts, (end, f"no answer within {timeout or 0.0:g} s"))
        online = self._online()
        for node in drafts:
            self._losses.pop(node, None)
            self._activated.pop(node, None)
            if node in online:
                self._activated[node] = online[node]
        self._push(list(drafts))
        self._look = time.monotonic() + LOOK_SECONDS

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Yield a node and its reply, or the reason why there is none, as they come.

        It ends when nothing is under way. Who stops before goes on with another call.
        """
        while self._drafts or self._settled:
            if not self._settled:
                self._wait()
            while self._settled:
                yield self._settled.popleft()

    def _wait(self) -> None:
        begin = time.monotonic()
        replies = self._pull()
        outage = time.monotonic() - begin > OUTAGE_SECONDS and not replies
        self._sort(replies)
        if outage or time.monotonic() > self._look:
            self._look = time.monotonic() + LOOK_SECONDS
            self._mend(outage)
        if not replies:
            time.sleep(PULL_SECONDS)
        for node in list(self._drafts):
            end, reason = self._ends[node]
            if time.monotonic() >= end:
                self._settle(node, reason)

    def _pull(self) -> list[Message]:
        return list(self._grid.pull_messages(list(self._nodes_of))) if self._nodes_of else []

    def _push(self, nodes: Sequence[int]) -> None:
        copies = [_copy(self._drafts[node]) for node in nodes]
        keys = list(self._grid.push_messages(copies)) or [""] * len(copies)
        for node, key in zip(nodes, keys, strict=True):
            self._lost.pop(node, None)
            if key:
                self._nodes_of[key] = node
            else:
                self._settle(node, "the SuperLink has refused its message")

    def _sort(self, replies: Sequence[Message]) -> None:
        """Settle the nodes that have answered, and note whose message is lost."""
        for reply in replies:
            node = self._nodes_of.pop(reply.metadata.reply_to_message_id, None)
            if node not in self._drafts:
                continue
            again = reply.has_error() and reply.error.code in LOST
            if again and node in self._nodes_of.values():
                continue  # another sending is still on its way
            if again and self._count_loss(node) < LOSSES:
                self._lost[node] = (time.monotonic(), reply.error.reason or "the message was lost")
            else:
                self._settle(node, reply)

    def _mend(self, outage: bool) -> None:
        """Send again what is lost: to nodes that are there, or that have been started anew."""
        online, now = self._online(), time.monotonic()
        for node, (since, reason) in list(self._lost.items()):
            if node not in online and now - since > AWAY_SECONDS:
                self._settle(node, reason)
        anew = {n for n in self._drafts if n in online and online[n] != self._activated.get(n)}
        self._activated |= online
        for node in anew - set(self._lost):
            if self._count_loss(node) >= LOSSES:
                self._settle(node, "its device was started anew again and again")
        lost = self._drafts if outage else anew | set(self._lost)
        again = set(lost) & set(self._drafts) & set(online)
        if again:
            self._push(sorted(again))

    def _count_loss(self, node: int) -> int:
        self._losses[node] = self._losses.get(node, 0) + 1
        return self._losses[node]

    def _settle(self, node: int, answer: Outcome) -> None:
        del self._drafts[node]
        self._lost.pop(node, None)
        self._nodes_of = {key: n for key, n in self._nodes_of.items() if n != node}
        self._settled.append((node, answer))

    def _online(self) -> dict[int, str]:
        """When each node that is there was activated."""
        return {node.node_id: node.last_activated_at for node in self._grid.get_nodes()}


def _copy(draft: Message) -> Message:
    """The same message with an id of its own."""
    about = draft.metadata
    return Message(draft.content, about.dst_node_id, about.message_type)
