"""What a run tells while it runs: a type for each event. They are the lines of metrics.jsonl.

A line is one object: `event`, the kind, and the fields but those that are at their default.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, get_args

from comigs.store.chosen import RoundChosen
from comigs.store.extended import Extended
from comigs.store.passing import (
    AskedAgain,
    Away,
    Broke,
    EvaluationStarted,
    FolderMade,
    LinesDamaged,
    Opened,
    Refused,
    RoundStarted,
    Submitted,
    Waiting,
)


class Untold(Enum):
    """In the place of a value of which None is one."""

    UNTOLD = "untold"


@dataclass(frozen=True)
class Started:
    """The rounds begin, or go on after `round`."""

    kind: ClassVar[str] = "start"
    method: str
    clients: list[str]  # names
    rounds: int
    round: int


@dataclass(frozen=True)
class ClientTrained:
    """A client's update was accepted.

    Attributes:
        since: the round in which it began, where that is another (`server.mode` buffered, behind a
            SuperLink).
        loss: mean training loss of the local steps, nats per token; balance: the balance loss.
        valid_ppl: validation perplexity of the model as received.
        seconds: wall time on the client, of which it trained and evaluated for two parts.
        bytes_up, bytes_down: tensors' values as they travelled.
        norm: L2 norm of the update.
        sim_down, sim_compute, sim_up, sim_seconds: simulated seconds, where it has a device.
        metrics: what `log.metrics` asks for, by name.
    """

    kind: ClassVar[str] = "client"
    round: int
    client: int
    name: str
    loss: float
    balance: float
    tokens: int
    steps: int
    router_steps: int
    router_tokens: int
    num_examples: int
    seconds: float
    train_seconds: float
    eval_seconds: float
    bytes_up: int
    bytes_down: int
    valid_ppl: float | None = None
    norm: float | None = None
    peer_evaluations: int | None = None
    peer_evaluation_tokens: int | None = None
    device: str | None = None
    sim_down: float | None = None
    sim_compute: float | None = None
    sim_up: float | None = None
    sim_seconds: float | None = None
    sim_joules: float | None = None
    metrics: dict[str, float] | None = None
    since: int | None = None


@dataclass(frozen=True)
class Joined:
    """A client that was not there when the rounds began takes part from `round` on."""

    kind: ClassVar[str] = "joined"
    round: int
    client: int
    name: str


@dataclass(frozen=True)
class Failed:
    """There is nothing to combine of a client, or nothing of its test."""

    kind: ClassVar[str] = "failure"
    name: str
    reason: str
    client: int
    round: int | None = None


@dataclass(frozen=True)
class Dropped:
    """A simulated device was lost in its round."""

    kind: ClassVar[str] = "dropped"
    round: int
    client: int
    name: str
    device: str
    reason: str


@dataclass(frozen=True)
class Late:
    """A simulated device's update came after its round had closed."""

    kind: ClassVar[str] = "late"
    round: int
    client: int
    name: str
    device: str
    reason: str


@dataclass(frozen=True)
class Arrived:
    """With `server.mode` buffered: a round took in the update of a client that began in `since`."""

    kind: ClassVar[str] = "arrived"
    round: int
    client: int
    name: str
    since: int


@dataclass(frozen=True)
class Abandoned:
    """A round's updates could not be combined; the server's tensors stay as they were."""

    kind: ClassVar[str] = "abandoned"
    round: int
    reason: str


@dataclass(frozen=True)
class Damaged:
    """A saved round cannot be used; the run goes on after an earlier one."""

    kind: ClassVar[str] = "damaged"
    round: int
    reason: str
    resumed_from: int


@dataclass(frozen=True)
class RoundDone:
    """A round has closed: means and sums over its clients.

    Attributes:
        seconds: wall time; compute_seconds: of all clients together.
        epsilon: client-level privacy spent so far; None without bound, untold without privacy.
        sim_seconds: simulated length; sim_clock: since the start; abandoned: too few came in time.
        edge_up, edge_down: bytes of edges and server; arrived, staleness: updates, their mean age.
        sim_wait: of sim_seconds, those in which too few devices were there to begin.
    """

    kind: ClassVar[str] = "round"
    round: int
    clients: int
    failed: int
    loss: float | None
    valid_ppl: float | None
    seconds: float
    compute_seconds: float
    tokens_per_second: float
    bytes_up: int
    bytes_down: int
    epsilon: float | Untold | None = Untold.UNTOLD
    sim_seconds: float | None = None
    sim_clock: float | None = None
    sim_joules: float | None = None
    late: int | None = None
    dropped: int | None = None
    abandoned: bool | None = None
    edge_up: int | None = None
    edge_down: int | None = None
    arrived: int | None = None
    staleness: float | None = None
    sim_wait: float | None = None
    metrics: dict[str, float] | None = None


@dataclass(frozen=True)
class Evaluated:
    """Test perplexities of one stream of test text, with what its client has cost.

    Attributes:
        pretrained: of the bare base; before and after: without and with the final shared tensors.
        trainable: parameters that the client trains; communicated: those that travel.
        bits_per_byte: of the final model; metrics: what `log.metrics` asks for, by name.
    """

    kind: ClassVar[str] = "final"
    client: int
    name: str
    test_tokens: int
    pretrained: float
    valid: float
    before: float
    after: float
    trainable: int
    bytes_up: int
    bytes_down: int
    seconds: float
    communicated: int
    peer_evaluations: int | None = None
    peer_evaluation_tokens: int | None = None
    fused_local: float | None = None
    fused_global: float | None = None
    fusion_evaluations: int | None = None
    bits_per_byte: float | None = None
    metrics: dict[str, float] | None = None


@dataclass(frozen=True)
class Ended:
    """The run is over; seconds of all its rounds."""

    kind: ClassVar[str] = "end"
    seconds: float


Kept = (
    Started | ClientTrained | Failed | Dropped | Late | Arrived | Abandoned | Damaged | RoundDone
    | Evaluated | RoundChosen | Joined | Ended
)  # fmt: skip
Passing = (  # told, but not kept
    FolderMade | Opened | Broke | Submitted | Away | Waiting | Refused | LinesDamaged
    | RoundStarted | EvaluationStarted | Extended | AskedAgain
)  # fmt: skip
Event = Kept | Passing
KINDS: dict[str, type] = {cls.kind: cls for cls in get_args(Event)}
