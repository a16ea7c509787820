"""What a client makes of its trained tensors before the payload is built."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from comigs.codecs import unsent
from comigs.config import RunConfig
from comigs.faults import poison
from comigs.methods import find_method
from comigs.state import read_state
from comigs.update import clipped, minus, plus, reference

Tensors = Mapping[str, Tensor]


def outgoing(
    config: RunConfig, client: int, number: int, tensors: Tensors, sent: Tensors, left: Tensors
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Clip, poison or turn into updates what the configuration says; else leave all as it is.

    Args:
        number: the round.
        tensors: every adapter tensor as trained.
        sent: what the server sent for this round.
        left: what earlier rounds did not send of their updates (`topk-int8`).

    Returns:
        `tensors`, in which the shared ones are what to encode (with topk-int8 or secagg updates),
        and what is left for the next round.
    """
    poisoned = client in (config.faults.poisoned or [])
    clips = config.privacy.mechanism != "none" and config.privacy.where == "client"
    sparse = config.payload.codec == "topk-int8"
    as_update = sparse or config.privacy.secure != "none"
    if not (poisoned or clips or as_update):
        return dict(tensors), {}
    shares = find_method(config.method).shares
    shared = {name: tensor for name, tensor in tensors.items() if shares(name)}
    start = reference(sent, {n: tuple(t.shape) for n, t in shared.items()}, config.seed)
    update = minus(shared, start)
    if clips:
        update = clipped(update, config.privacy.clip)
    if poisoned:
        update = poison(config.faults, update, config.seed, client, number)
    if not as_update:
        return {**tensors, **plus(update, start)}, {}
    if not sparse:
        return {**tensors, **update}, {}
    update = plus(update, left) if left else update
    return {**tensors, **update}, unsent(config.payload, update)


def left_of(config: RunConfig, root: Path, state_round: int) -> dict[str, Tensor]:
    """What the client's earlier rounds did not send of their updates."""
    if config.payload.codec != "topk-int8" or state_round == 0:
        return {}
    return read_state(root, state_round)[0].get("unsent", {})
