"""Clients at work behind a SuperLink, over as many rounds as each of them takes."""

from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from comigs_server.fleet.exchange import Answer, Client, answer_of
from comigs_server.fleet.post import Post
from comigs_server.fleet.records import bytes_of, node_of
from comigs_server.grids.superlink import bundled, opened


class Mail:
    """Orders that are under way, and answers as they come.

    Attributes:
        down: by client, bytes of the tensors' values that it was sent last.
    """

    def __init__(self, grid: Grid) -> None:
        self._post = Post(grid)
        self._clients: dict[int, Client] = {}  # by node
        self.down: dict[int, int] = {}

    @property
    def at_work(self) -> set[int]:
        """Ids of clients whose answer has still to come."""
        return {self._clients[node].id for node in self._post.under_way}

    def send(
        self, messages: Sequence[Message], clients: Sequence[Client], timeout: float | None
    ) -> None:
        """Order clients to work that are not at work.

        Args:
            timeout: seconds until each of them is given up; None: never.
        """
        self._clients |= {client.node: client for client in clients}
        self.down |= {self._clients[node_of(m)].id: bytes_of(m) for m in messages}
        self._post.send(list(bundled(messages)), timeout)

    def answers(self) -> Iterator[Answer]:
        """An answer of each client at work, as it comes; who stops before may go on later."""
        for node, outcome in self._post.outcomes():
            client = self._clients[node]
            yield answer_of(client, opened(outcome, client.shapes))
