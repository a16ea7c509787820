"""What a method may look at and change when tensors arrive."""

from collections.abc import Mapping
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor

from comigs.config.settings import ClientConfig
from comigs.data.tokens import ClientData


@dataclass(frozen=True)
class Arrival:
    """One arrival at one client.

    Attributes:
        model: holds the client's own tensors; to be changed in place.
        shared: what the server sent, by name; empty before the first aggregation.
        moments: the client's optimiser moments; entries may be removed.
        client: its number.
        round: the round about to begin; after the last one, the number of rounds + 1.
        kept: numbers that the method keeps from one arrival of the client to the next; it may
            change them in place.
        tensors: the same for tensors, on the CPU.
    """

    model: PeftModel
    shared: Mapping[str, Tensor]
    moments: dict[str, Tensor]
    data: ClientData
    config: ClientConfig
    client: int
    round: int
    kept: dict[str, float]
    tensors: dict[str, Tensor]
