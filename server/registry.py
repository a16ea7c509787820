"""Who the clients are: each is asked when it is first needed, so that idle ones cost nothing."""

import json
from collections.abc import Iterable
from functools import lru_cache

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from comigs.config import RunConfig
from comigs.errors import ComigsError
from comigs.local import training_clients
from server.exchange import Answer, Client, collect, order
from server.grids.embedded import EmbeddedGrid


class Registry:
    """All clients of a federation, by id.

    An embedded grid has client i at node i + 1. Behind a SuperLink only the nodes themselves know
    which client they are, so all of them are asked at once.

    Attributes:
        names: of every client, by id.

    Raises:
        ComigsError: when a node behind a SuperLink does not say who it is.
    """

    def __init__(self, grid: Grid, config: RunConfig) -> None:
        self.names = training_clients(config)
        self._grid, self._config = grid, config
        self._known: dict[int, Client] = {}
        if not isinstance(grid, EmbeddedGrid):
            self._ask(grid.get_node_ids())

    @property
    def ids(self) -> list[int]:
        """Every client's id, in order."""
        embedded = isinstance(self._grid, EmbeddedGrid)
        return list(range(len(self.names))) if embedded else sorted(self._known)

    def meet(self, ids: Iterable[int]) -> tuple[list[Client], list[Answer]]:
        """Return the clients with these ids, and the answers of those that cannot be reached."""
        wanted = list(ids)
        failed = self._ask([i + 1 for i in wanted if i not in self._known])
        return [self._known[i] for i in wanted if i in self._known], failed

    def require(self, ids: Iterable[int]) -> list[Client]:
        """Like `meet`, for clients that the run cannot go on without.

        Raises:
            ComigsError: when one of them cannot be reached.
        """
        clients, failed = self.meet(ids)
        for answer in failed:
            raise ComigsError(f"client {answer.client.name} cannot start: {answer.reason}")
        return clients

    def _ask(self, nodes: Iterable[int]) -> list[Answer]:
        content = RecordDict({"config": order(self._config)})
        strangers = [self._stranger(node) for node in nodes]
        messages = [Message(content, dst_node_id=s.node, message_type="query") for s in strangers]
        failed = []
        for answer in collect(self._grid, messages, strangers):
            if answer.reply is None:
                failed.append(answer)
                continue
            about = json.loads(str(answer.reply.content.config_records["hello"]["json"]))
            client = int(about["client"])
            self._known[client] = Client(
                client,
                answer.client.node,
                about["name"],
                frozenset(about["rounds"]),
                _shapes(json.dumps(about["shapes"])),
            )
        if failed and not isinstance(self._grid, EmbeddedGrid):
            raise ComigsError(f"{failed[0].client.name} cannot start: {failed[0].reason}")
        return failed

    def _stranger(self, node: int) -> Client:
        if isinstance(self._grid, EmbeddedGrid):
            return Client(node - 1, node, self.names[node - 1], frozenset(), {})
        return Client(node, node, f"node {node}", frozenset(), {})


@lru_cache(maxsize=64)
def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Clients with equal experts have one table of shapes in common."""
    return {name: tuple(shape) for name, shape in json.loads(text).items()}
