"""What a client does with the tensors that the server sent."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from peft import PeftModel
from torch import Tensor

from comigs.errors import Refusal
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.methods.arrival import Arrival
from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors, start_empty_components


def receive(run: Run, arrival: Arrival) -> dict[str, float]:
    """Put what arrived into the model as the method does it, and return metrics.

    Raises:
        Refusal: as `check_arrived`.
    """
    if not arrival.shared:
        return {}
    check_arrived(run, arrival.model, arrival.shared)
    if arrival.config.train.layers is not None:
        arrival = replace(arrival, shared=_whole(run, arrival))
    if run.method.receive:
        metrics = run.method.receive(arrival)
    else:
        load_adapter_tensors(arrival.model, arrival.shared)
        metrics = {}
    start_empty_components(arrival.model, arrival.config.seed)
    return metrics


def _whole(run: Run, arrival: Arrival) -> dict[str, Tensor]:
    """What arrived, and the common start of layers that nobody has trained yet."""
    named = adapter_parameters(arrival.model)
    shapes = {name: tuple(p.shape) for name, p in named.items() if run.method.shares(name)}
    return reference(run, arrival.client, arrival.round, arrival.shared, shapes)


def finish(run: Run, arrival: Arrival) -> dict[str, float]:
    """What the client does once more at the very end, after `receive`."""
    return run.method.finish(arrival) if run.method.finish else {}


def check_arrived(run: Run, model: PeftModel, shared: Mapping[str, Tensor]) -> None:
    """Refuse what is not of this client's shared tensors: nothing else can be overwritten.

    Raises:
        Refusal: for a tensor that the method does not share, of another kind or shape, or with
            NaN or infinity.
    """
    method, parameters = run.method, adapter_parameters(model)
    for name, tensor in shared.items():
        own, corrects = run.aggregator.arriving(name)
        if not method.shares(own):
            raise _refuse(name, "is not shared by this method")
        if own not in parameters:
            raise _refuse(name, "does not exist in this client's model")
        have, want = tuple(tensor.shape), tuple(parameters[own].shape)
        if tensor.dtype != torch.float32:
            raise _refuse(name, f"is {tensor.dtype}; only float32 travels")
        if len(have) != len(want) or (have != want and not corrects and not method.prune):
            raise _refuse(name, f"has shape {have}; this client's model needs {want}")
        if not torch.isfinite(tensor).all():
            raise _refuse(name, "holds NaN or infinity")
        if corrects:
            _check_pair(name, shared, parameters[own].shape)


def _check_pair(name: str, shared: Mapping[str, Tensor], shape: torch.Size) -> None:
    """One half of a correction: its rank is its own, but that of the other half."""
    half, other = ("A", "B") if "_A." in name else ("B", "A")
    twin = shared.get(name.replace(f"_{half}.", f"_{other}."))
    rank, outer = (0, 1) if half == "A" else (1, 0)
    tensor = shared[name]
    whole = twin is not None and twin.dim() == 2 and twin.shape[outer] == tensor.shape[rank]
    if not whole or tensor.shape[outer] != shape[outer]:
        raise _refuse(name, f"has shape {tuple(tensor.shape)}, which does not fit")


def _refuse(name: str, why: str) -> Refusal:
    return Refusal("bad-arrays", f"tensor {name!r:.200} {why}")
