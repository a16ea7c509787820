"""Events that are told while a run goes on, and not kept."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FolderMade:
    kind: ClassVar[str] = "folder"
    folder: str


@dataclass(frozen=True)
class Opened:
    """A ServerApp has begun to tell its events."""

    kind: ClassVar[str] = "open"


@dataclass(frozen=True)
class Broke:
    """A ServerApp ends with an error."""

    kind: ClassVar[str] = "error"
    reason: str


@dataclass(frozen=True)
class Submitted:
    """A SuperLink has taken the run."""

    kind: ClassVar[str] = "submitted"
    run: str


@dataclass(frozen=True)
class Away:
    """The SuperLink does not answer."""

    kind: ClassVar[str] = "away"
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Not all clients are there yet."""

    kind: ClassVar[str] = "waiting"
    clients: int
    of: int


@dataclass(frozen=True)
class Refused:
    """A node cannot be a client of this run."""

    kind: ClassVar[str] = "refused"
    name: str
    reason: str


@dataclass(frozen=True)
class AskedAgain:
    """Clients that were at work when the server stopped repeat the round that they were in."""

    kind: ClassVar[str] = "asked again"
    clients: list[str]  # names


@dataclass(frozen=True)
class LinesDamaged:
    """metrics.jsonl has lines that are no events; the file as it was is `kept`."""

    kind: ClassVar[str] = "damaged lines"
    lines: list[int]
    kept: str


@dataclass(frozen=True)
class RoundStarted:
    kind: ClassVar[str] = "round started"
    round: int
    clients: int


@dataclass(frozen=True)
class EvaluationStarted:
    kind: ClassVar[str] = "evaluation started"
    clients: int
