"""What the steps of a round hand on to each other."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from comigs.config.profiles import Profile
from comigs.federation.run import Run
from comigs.store.events import ClientTrained
from comigs_server.combine.accountant import Draw
from comigs_server.combine.rule import Rule
from comigs_server.fleet.exchange import Answer, Client
from comigs_server.fleet.mail import Mail
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.secagg import Session
from comigs_server.fleet.update import Update
from comigs_server.journal import Journal
from comigs_server.resume import Progress
from comigs_server.timing.clock import Loss


@dataclass(frozen=True)
class Round:
    """What the steps of one round have in common; `progress` is the state after the one before.

    Attributes:
        mail: where rounds overlap behind a SuperLink, whom earlier ones have put to work.
    """

    grid: Grid
    run: Run
    clients: Registry
    progress: Progress
    rule: Rule
    journal: Journal
    number: int
    mail: Mail | None = None


@dataclass(frozen=True)
class Chosen:
    """Who was drawn, who of them is there, and answers of those who are not.

    Attributes:
        draw: how many could be drawn, and how many were.
        begin: simulated seconds at which they are asked; wait: since the round before has closed.
    """

    ids: list[int]
    clients: list[Client]
    absent: list[Answer]
    draw: Draw
    begin: float
    wait: float


@dataclass(frozen=True)
class Sent:
    """The messages under way; by client, device, bytes and losses; the secure session if any."""

    messages: list[Message]
    devices: Mapping[int, Profile]
    down: Mapping[int, int]
    lost: Mapping[int, Loss]
    session: Session | None


@dataclass(frozen=True)
class Received:
    """By client, the accepted updates and what was told about them.

    Attributes:
        resting: ids of those who want no shared tensors for the next round.
        arrivals: simulated seconds from the close of the round before to the update.
    """

    updates: dict[int, Update]
    told: dict[int, ClientTrained]
    resting: set[int]
    arrivals: dict[int, float]
