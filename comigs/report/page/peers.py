"""What clients tell of their peers (`log.metrics`), as a matrix: one picture each."""

import math
from collections.abc import Iterable, Mapping

from comigs.report.matrix import heat_map
from comigs.report.plots import Picture
from comigs.store.events import ClientTrained, Evaluated

SAID = {
    "graph": "The weight in [0, 1] that each client (row) has learnt of each peer (column): 1 is "
    "pulled to it in full, 0 not at all.",
    "influence": "What the validation loss of each client (row) would do on the way to each peer's "
    "tensors (column), to first order, in nats per token: below 0 the peer helps.",
}
TITLES = {"graph": "Who works with whom", "influence": "Who helps whom"}
FAINT = 1e-12  # where all numbers are 0, no cell is strong


def of_peers(events: Iterable[ClientTrained | Evaluated]) -> list[Picture | None]:
    """A picture of each metric of peers, of the newest numbers of each client."""
    names: dict[int, str] = {}
    rows: dict[str, dict[int, Mapping[int, float]]] = {}
    for event in events:
        names[event.client] = event.name
        for metric in SAID:
            if row := _row(metric, event.metrics or {}):
                rows.setdefault(metric, {})[event.client] = row
    return [_picture(metric, names, rows[metric]) for metric in SAID if metric in rows]


def _row(metric: str, told: Mapping[str, float]) -> dict[int, float]:
    """A client's numbers, by peer."""
    start = f"peers/{metric}/"
    mine = {key.removeprefix(start): v for key, v in told.items() if key.startswith(start)}
    return {int(peer): value for peer, value in mine.items() if peer.isdecimal()}


def _picture(
    metric: str, names: Mapping[int, str], rows: Mapping[int, Mapping[int, float]]
) -> Picture:
    clients = sorted(names)
    matrix = [[rows.get(i, {}).get(j, math.nan) for j in clients] for i in clients]
    top = max([FAINT, *(abs(v) for row in matrix for v in row if math.isfinite(v))])
    title = TITLES[metric]
    svg = heat_map([names[i] for i in clients], matrix, title, top, metric)
    return Picture(title, SAID[metric], svg)
