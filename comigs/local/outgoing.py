"""What a client makes of its trained tensors before the payload is built."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from comigs.config.privacy import PayloadConfig
from comigs.federation.run import Client
from comigs.local.faults import poison
from comigs.local.reference import reference
from comigs.messages.codecs import unsent
from comigs.messages.update import clipped, minus, plus, proper
from comigs.store.state import read_state

Tensors = Mapping[str, Tensor]


def outgoing(
    client: Client, number: int, tensors: Tensors, sent: Tensors, left: Tensors
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Clip, poison or turn into updates what the configuration says; else leave all as it is.

    Args:
        number: the round.
        tensors: every adapter tensor as trained.
        sent: what the server sent for this round.
        left: what earlier rounds did not send of their updates.

    Returns:
        `tensors`, in which the shared ones are what to encode (with a codec or secagg updates),
        and what is left for the next round.
    """
    config, method = client.config, client.method
    poisoned = client.number in (config.faults.poisoned or [])
    clips = config.privacy.mechanism != "none" and config.privacy.where == "client"
    coded = config.payload.codec != "none"
    as_update = coded or config.privacy.secure != "none"
    if not (poisoned or clips or as_update):
        return dict(tensors), {}
    shared = {name: tensor for name, tensor in tensors.items() if method.shares(name)}
    shapes = {name: tuple(tensor.shape) for name, tensor in shared.items()}
    start = reference(client.run, client.number, number, sent, shapes)
    update = minus(shared, start)
    if clips:
        update = clipped(update, config.privacy.clip)
    if poisoned:
        update = poison(config.faults, update, config.seed, client.number, number)
    if not as_update:
        return {**tensors, **plus(update, start)}, {}
    if not (coded and method.feedback):
        return {**tensors, **update}, {}
    same = {name: t for name, t in left.items() if tuple(t.shape) == shapes.get(name)}
    update |= plus(same, update)
    resting = {name: tensor for name, tensor in left.items() if name not in update}
    return {**tensors, **update}, resting | unsent(config.payload, proper(update))


def left_of(payload: PayloadConfig, root: Path, state_round: int) -> dict[str, Tensor]:
    """What the client's earlier rounds did not send of their updates."""
    if payload.codec == "none" or state_round == 0:
        return {}
    return read_state(root, state_round)[0].get("unsent", {})
