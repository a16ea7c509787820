"""Send one message to each client and collect the replies as they come."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from comigs.errors import flat
from comigs_server.fleet.post import Post
from comigs_server.grids.embedded import EmbeddedGrid
from comigs_server.grids.superlink import Outcome, bundled, opened

AT_ONCE = 1000  # clients


@dataclass(frozen=True)
class Client:
    """A client as it introduced itself.

    Attributes:
        id: its number, Flower's partition-id.
        node: its Flower node id.
        name: name of its text.
        rounds: rounds of which it holds an intact state.
        shapes: shape of each tensor it shares.
        examples: tokens of its training text, where averages are weighted by them.
    """

    id: int
    node: int
    name: str
    rounds: frozenset[int] = field(compare=False)
    shapes: Mapping[str, tuple[int, ...]] = field(compare=False)
    examples: int | None = None


@dataclass(frozen=True)
class Answer:
    """What came back from one client: a reply, or the reason why there is none."""

    client: Client
    reply: Message | None
    reason: str = ""


def in_parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Who is asked at once: messages to 100,000 clients are not held in memory together."""
    for begin in range(0, len(ids), AT_ONCE):
        yield ids[begin : begin + AT_ONCE]


def collect(
    grid: Grid,
    messages: Sequence[Message],
    clients: Iterable[Client],
    timeout: float | None = None,
) -> Iterator[Answer]:
    """Send `messages` and yield an answer to each, in order of arrival.

    Args:
        timeout: seconds to wait behind a SuperLink; embedded grids know when a client hangs.
    """
    by_node = {client.node: client for client in clients}
    if not isinstance(grid, EmbeddedGrid):
        for node, outcome in Post(grid).exchange(list(bundled(messages)), timeout):
            client = by_node[node]
            yield answer_of(client, opened(outcome, client.shapes))
        return
    waiting = dict(zip(grid.push_messages(messages), messages, strict=True))
    while waiting:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            asked = waiting.pop(reply.metadata.reply_to_message_id)
            yield answer_of(by_node[asked.metadata.dst_node_id], reply)
        if not replies:
            time.sleep(0.002)


def answer_of(client: Client, outcome: Outcome) -> Answer:
    """What an outcome says of its client."""
    if isinstance(outcome, str):
        return Answer(client, None, flat(outcome))
    if outcome.has_error():
        return Answer(client, None, flat(outcome.error.reason or "") or "no reason given")
    return Answer(client, outcome)
