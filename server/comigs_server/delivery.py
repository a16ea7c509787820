"""What each client gets of the tensors that the server keeps, and in which form."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from flwr.app import Message
from torch import Tensor

from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.codecs import decode, encode, name_of
from comigs.messages.update import minus, plus
from comigs.mixture.ranks import lora_scale
from comigs_server.fleet.exchange import Client
from comigs_server.fleet.records import Told, tensor_messages
from comigs_server.resume import Progress

Share = Callable[[Client], dict[str, Tensor]]


def sharer(run: Run, progress: Progress) -> Share:
    """A function that makes one client's share of `progress.shared`; nothing for who rests."""

    def share_of(client: Client) -> dict[str, Tensor]:
        if client.id in progress.resting:
            return {}
        fresh = progress.client_rounds.get(client.id) == progress.round
        scale = partial(lora_scale, run.config.experts)
        kept = run.aggregator.view(progress.shared, client.id)
        return run.aggregator.deliver(kept, client.shapes, scale, fresh)

    return share_of


def parcels(run: Run, progress: Progress) -> Share:
    """As `sharer`, in the form in which it travels: for who has the rest, what has changed."""
    whole = sharer(run, progress)

    def parcel_of(client: Client) -> dict[str, Tensor]:
        if not takes_changes(run, progress, client):
            return whole(client)
        mine = client.shapes
        return {name: array for name, array in progress.change.items() if name_of(name) in mine}

    return parcel_of


def orders(
    run: Run, progress: Progress, number: int, clients: Sequence[Client], told: Told
) -> list[Message]:
    """The messages that have clients train round `number`, which begins from `progress`.

    Args:
        told: by the rule, to each of them.
    """

    def order_of(client: Client) -> Told:
        return {
            "server-round": number,
            "state-round": progress.client_rounds.get(client.id, 0),
            "changes": takes_changes(run, progress, client),
            **kept_round(progress, client),
            **told,
        }

    return tensor_messages("train", run, clients, parcels(run, progress), order_of)


def takes_changes(run: Run, progress: Progress, client: Client) -> bool:
    """Whether what has changed in the last round is enough for a client."""
    packed = run.config.payload.down != "none"
    return packed and client.id in progress.current and client.id not in progress.resting


def kept_round(progress: Progress, client: Client) -> dict[str, int]:
    """The round of which a client is to keep its state: it goes with the best one so far."""
    number = progress.watched.states.get(client.id)
    return {} if number is None else {"kept-round": number}


def take_in(run: Run, progress: Progress, made: Mapping[str, Tensor]) -> None:
    """Let `progress.shared` go on to what a round has made.

    With `payload.down` it goes as far as the packed change leads; what rounding takes off is added
    to the next change, as codecs do it with updates (arXiv 1809.07599).

    Args:
        made: the combined tensors; empty if there are none.
    """
    kept, payload = run.aggregator.lasting(progress.shared), run.config.payload.downward
    if payload.codec == "none":
        progress.shared = kept | dict(made)
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in made.items()}
    start = reference(run, 0, 1, progress.shared, shapes)
    left = {name: t for name, t in progress.unsent.items() if name in made}
    wanted = minus(made, start)
    wanted |= plus(left, wanted)
    arrays = encode(payload, wanted)
    step = decode(payload, arrays, shapes)
    progress.change = {name: torch.from_numpy(array) for name, array in arrays.items()}
    progress.shared = kept | plus(step, start)
    progress.unsent |= minus(wanted, step)
