"""Who the clients are: each is asked when it is first needed, so that idle ones cost nothing."""

import json
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from comigs.config import RunConfig
from comigs.errors import BadInput, ComigsError
from comigs.local import training_clients
from server.exchange import Answer, Client, collect, order
from server.grids.embedded import EmbeddedGrid

LOOK_SECONDS = 2.0  # between looks at the nodes of a SuperLink


class Registry:
    """All clients of a federation, by id.

    An embedded grid has client i at node i + 1. Behind a SuperLink only the nodes themselves know
    which client they are; they may come and go, and `look` asks those that are new.

    Attributes:
        names: of every client that is known, by id.
    """

    def __init__(self, grid: Grid, config: RunConfig) -> None:
        self._embedded = isinstance(grid, EmbeddedGrid)
        self.names = dict(enumerate(training_clients(config))) if self._embedded else {}
        self._grid, self._config = grid, config
        self._known: dict[int, Client] = {}
        self._online: set[int] = set()

    @property
    def ids(self) -> list[int]:
        """Id of every client that can be reached, in order."""
        if self._embedded:
            return sorted(self.names)
        return sorted(i for i, client in self._known.items() if client.node in self._online)

    def look(self) -> list[Answer]:
        """See which nodes of the SuperLink are there; return the answers of those that failed."""
        if self._embedded:
            return []
        self._online = set(self._grid.get_node_ids())
        return self._ask(self._online - {client.node for client in self._known.values()})

    def wait(self, watch: Callable[[dict[str, Any]], None]) -> None:
        """Wait until all clients that the configuration expects are there.

        Raises:
            ComigsError: when a node does not say who it is.
        """
        told, wanted = -1, _listed_clients(self._config)
        while True:
            for answer in self.look():
                raise ComigsError(f"{answer.client.name} cannot start: {answer.reason}")
            if self._embedded or len(self.ids) >= wanted:
                return
            if len(self.ids) != told:
                told = len(self.ids)
                watch({"event": "waiting", "clients": told, "of": wanted})
            time.sleep(LOOK_SECONDS)

    def absent(self, seconds: float) -> list[Client]:
        """Known clients whose nodes are away, and still are after so many seconds."""
        if self._embedded:
            return []
        end = time.monotonic() + seconds
        while True:
            self.look()
            away = [c for c in self._known.values() if c.node not in self._online]
            if not away or time.monotonic() > end:
                return away
            time.sleep(LOOK_SECONDS)

    def meet(self, ids: Iterable[int]) -> tuple[list[Client], list[Answer]]:
        """Return the clients with these ids, and the answers of those that cannot be reached."""
        wanted = list(ids)
        missing = [i for i in wanted if i not in self._known]
        failed = self._ask([i + 1 for i in missing]) if self._embedded else []
        return [self._known[i] for i in wanted if i in self._known], failed

    def require(self, ids: Iterable[int]) -> list[Client]:
        """Like `meet`, for clients that the run cannot go on without.

        Raises:
            ComigsError: when one of them cannot be reached.
        """
        wanted = list(ids)
        clients, failed = self.meet(wanted)
        for answer in failed:
            raise ComigsError(f"client {answer.client.name} cannot start: {answer.reason}")
        if absent := sorted(set(wanted) - {client.id for client in clients}):
            raise ComigsError(f"client {absent[0]} is not there, and its state is needed")
        return clients

    def _ask(self, nodes: Iterable[int]) -> list[Answer]:
        content = RecordDict({"config": order(self._config)})
        strangers = [self._stranger(node) for node in nodes]
        messages = [Message(content, dst_node_id=s.node, message_type="query") for s in strangers]
        failed = []
        timeout = self._config.server.round_timeout
        for answer in collect(self._grid, messages, strangers, timeout):
            if answer.reply is None:
                failed.append(answer)
                continue
            about = json.loads(str(answer.reply.content.config_records["hello"]["json"]))
            client = int(about["client"])
            other = self._known.get(client)
            if other and other.node in self._online:
                raise ComigsError(
                    f"nodes {other.node} and {answer.client.node} both say that they are client "
                    f"{client}; give each SuperNode a partition-id of its own"
                )
            self.names[client] = about["name"]
            self._known[client] = Client(
                client,
                answer.client.node,
                about["name"],
                frozenset(about["rounds"]),
                _shapes(json.dumps(about["shapes"])),
            )
        return failed

    def _stranger(self, node: int) -> Client:
        if self._embedded:
            return Client(node - 1, node, self.names[node - 1], frozenset(), {})
        return Client(node, node, f"node {node}", frozenset(), {})


def expected_clients(config: RunConfig) -> int | None:
    """How many clients the configuration speaks of; None: it does not."""
    counts = [config.clients] if config.clients else [len(v) for v in config.per_client().values()]
    return counts[0] if counts else None


def _listed_clients(config: RunConfig) -> int:
    """How many clients there will be, as far as this machine can know."""
    try:
        return expected_clients(config) or len(training_clients(config))
    except BadInput:  # the texts are on the devices, and there is no list of them here
        return config.server.min_clients


@lru_cache(maxsize=64)
def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Clients with equal experts have one table of shapes in common."""
    return {name: tuple(shape) for name, shape in json.loads(text).items()}
