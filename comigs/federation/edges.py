"""Edge aggregators (`server.tiers`): which of them stands between a device and the server."""

from collections.abc import Iterable, Mapping

from comigs.federation.run import Run


def edge_of(run: Run, client: int) -> int:
    """The edge of a client: as many blocks of neighbours as there are edges, of equal size."""
    return client * (run.config.server.tiers or 1) // len(run.names)


def edges_of(run: Run, clients: Iterable[int]) -> dict[int, list[int]]:
    """By edge, those of these clients that are its own, in order."""
    edges: dict[int, list[int]] = {}
    for client in sorted(clients):
        edges.setdefault(edge_of(run, client), []).append(client)
    return edges


def at_edges_once(run: Run, down: Mapping[int, int]) -> int:
    """Bytes that the edges fetch for their clients: what is the same for several of them, once.

    Args:
        down: by client, the bytes that it fetches; equal ones are of the same tensors.
    """
    return sum(sum({down[i] for i in members}) for members in edges_of(run, down).values())
