"""What the simulated devices of a run did, by kind of device, from its events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mean

from comigs.store.events import ClientTrained, Dropped, Event, Late


@dataclass
class Kind:
    """The clients that have one kind of device; seconds are simulated, one for each update."""

    name: str
    clients: set[int] = field(default_factory=set)
    late: int = 0
    lost: int = 0
    joules: float = 0.0
    down: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)

    @property
    def updates(self) -> int:
        return len(self.up)

    def mean(self, part: str) -> float | None:
        seconds = getattr(self, part)
        return mean(seconds) if seconds else None


def kinds_of_device(events: Iterable[Event]) -> list[Kind]:
    """Sum up the events of simulated clients, by the name of their device; [] without any."""
    kinds: dict[str, Kind] = {}
    for event in events:
        if not isinstance(event, ClientTrained | Late | Dropped) or event.device is None:
            continue
        kind = kinds.setdefault(event.device, Kind(event.device))
        kind.clients.add(event.client)
        kind.late += isinstance(event, Late)
        kind.lost += isinstance(event, Dropped)
        if isinstance(event, ClientTrained):
            kind.joules += event.sim_joules or 0.0
            for part in ("down", "compute", "up"):
                getattr(kind, part).append(getattr(event, f"sim_{part}"))
    return sorted(kinds.values(), key=lambda kind: kind.name)
