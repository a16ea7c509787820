"""Who the clients are: each is asked when it is first needed, so that idle ones cost nothing."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from flwr.serverapp import Grid

from comigs.config.settings import RunConfig
from comigs.errors import BadInput, ComigsError, flat
from comigs.federation.run import Run
from comigs.messages.reply import Broken, Hello, read_hello
from comigs.store.passing import Refused, Waiting
from comigs_server.fleet.exchange import Answer, Client, collect, in_parts
from comigs_server.fleet.records import query_messages, text_of
from comigs_server.fleet.shapes import check_fit
from comigs_server.grids.embedded import EmbeddedGrid

LOOK_SECONDS = 2.0  # between looks at the nodes of a SuperLink


class Registry:
    """All clients of a federation, by id.

    An embedded grid has client i at node i + 1. Behind a SuperLink only the nodes themselves know
    which client they are; they may come and go, and `look` asks those that are new.

    Attributes:
        names: of every client that is known, by id.
        nodes: behind a SuperLink, by client, the node that was first to be it. A SuperLink that
            asks for keys gives the same node number to a device whenever it comes.
    """

    def __init__(self, grid: Grid, run: Run) -> None:
        self._embedded = isinstance(grid, EmbeddedGrid)
        self.names = dict(enumerate(run.names)) if self._embedded else {}
        self._grid, self._run = grid, run
        self._known: dict[int, Client] = {}
        self._online: set[int] = set()
        self._refused: set[int] = set()
        self.nodes: dict[int, int] = {}

    @property
    def ids(self) -> Sequence[int]:
        """Id of every client that can be reached, in order."""
        if self._embedded:
            return range(len(self.names))
        return sorted(i for i, client in self._known.items() if client.node in self._online)

    def look(self) -> list[Answer]:
        """See which nodes of the SuperLink are there; return the answers of those that failed."""
        if self._embedded:
            return []
        self._online = set(self._grid.get_node_ids())
        asked = {client.node for client in self._known.values()} | self._refused
        return self._ask(self._online - asked)

    def wait(self, tell: Callable[[Refused | Waiting], None]) -> None:
        """Wait until all clients that the configuration expects are there.

        Raises:
            ComigsError: when as many nodes are there, and none can say who it is.
        """
        told, wanted = -1, _listed_clients(self._run)
        while True:
            for answer in self.look():
                if not self.ids and len(self._online) >= wanted:
                    raise ComigsError(f"{answer.client.name} cannot start: {answer.reason}")
                tell(Refused(answer.client.name, answer.reason))
            if self._embedded or len(self.ids) >= wanted:
                return
            if len(self.ids) != told:
                told = len(self.ids)
                tell(Waiting(told, wanted))
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
        missing = [i for i in wanted if i not in self._known] if self._embedded else []
        failed: list[Answer] = []
        for some in in_parts(missing):
            failed += self._ask([i + 1 for i in some])
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
        strangers = [self._stranger(node) for node in nodes]
        messages = query_messages(self._run, [stranger.node for stranger in strangers])
        failed = []
        timeout = self._run.config.server.round_timeout
        for answer in collect(self._grid, messages, strangers, timeout):
            if answer.reply is None:
                failed.append(answer)
                continue
            try:
                said = read_hello(text_of(answer.reply, "hello"))
                self._claim(said, answer.client)
            except Exception as error:  # of whatever kind: it is about what a client sent
                why = str(error) if isinstance(error, Broken) else "lacks its record"
                reason = flat(f"its introduction {why}")
                failed.append(Answer(answer.client, None, reason))
                self._refused.add(answer.client.node)
                continue
            self.names[said.client] = said.name
            self._known[said.client] = Client(
                said.client,
                answer.client.node,
                said.name,
                frozenset(said.rounds),
                _shapes(json.dumps(said.shapes)),
                said.num_examples,
            )
        return failed

    def _claim(self, said: Hello, node: Client) -> None:
        """Give a client's number to the node that says it is it, for the whole run.

        Raises:
            Broken: it is another node's, or there is no such client.
        """
        if self._embedded:
            if (said.client, said.name) != (node.id, node.name):
                raise Broken(f"is that of client {said.client}, {said.name!r}")
            check_fit(said, self._run)
            return
        count = expected_clients(self._run.config)
        if count is not None and said.client >= count:
            closed = f"is that of client {said.client}; there are 0..{count - 1}"
            raise Broken(f"{closed}, since the run says how many")
        owner = self.nodes.get(said.client)
        free = self._run.config.flower.keyless and owner not in self._online
        if owner not in (None, node.node) and not free:
            raise Broken(f"is that of client {said.client}, which node {owner} was first to be")
        if said.name in {n for i, n in self.names.items() if i != said.client}:
            raise Broken(f"has the name of another client, {said.name!r}")
        check_fit(said, self._run)
        self.nodes[said.client] = node.node

    def _stranger(self, node: int) -> Client:
        if self._embedded:
            return Client(node - 1, node, self.names[node - 1], frozenset(), {})
        return Client(node, node, f"node {node}", frozenset(), {})


def expected_clients(config: RunConfig) -> int | None:
    """How many clients the configuration speaks of; None: it does not."""
    counts = [config.clients] if config.clients else [len(v) for v in config.per_client().values()]
    return counts[0] if counts else None


def _listed_clients(run: Run) -> int:
    """How many clients there will be, as far as this machine can know."""
    try:
        return expected_clients(run.config) or len(run.names)
    except BadInput:  # the texts are on the devices, and there is no list of them here
        return run.config.server.min_clients


@lru_cache(maxsize=64)
def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Clients with equal experts have one table of shapes in common."""
    return {name: tuple(shape) for name, shape in json.loads(text).items()}
