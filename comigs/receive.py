"""What a client does with the tensors that the server sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from peft import PeftModel
from torch import Tensor

from comigs.adapters import load_adapter_tensors
from comigs.config import RunConfig
from comigs.data.tokens import ClientData
from comigs.methods import find_method


@dataclass(frozen=True)
class Arrival:
    """What a method may look at and change when tensors arrive.

    Attributes:
        model: holds the client's own tensors; to be changed in place.
        shared: what the server sent, by name; empty before the first aggregation.
        moments: the client's optimiser moments; entries may be removed.
        client: its number.
        round: the round about to begin; after the last one, the number of rounds + 1.
    """

    model: PeftModel
    shared: Mapping[str, Tensor]
    moments: dict[str, Tensor]
    data: ClientData
    config: RunConfig
    client: int
    round: int


def receive(arrival: Arrival) -> dict[str, float]:
    """Put what arrived into the model as the method does it, and return metrics."""
    method = find_method(arrival.config.method)
    if not arrival.shared:
        return {}
    if method.receive:
        return method.receive(arrival)
    load_adapter_tensors(arrival.model, arrival.shared)
    return {}


def finish(arrival: Arrival) -> dict[str, float]:
    """What the client does once more at the very end, after `receive`."""
    method = find_method(arrival.config.method)
    return method.finish(arrival) if method.finish else {}
