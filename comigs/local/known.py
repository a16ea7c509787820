"""What a client knows of the shared tensors, when the server sends only what has changed."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from comigs.errors import Refusal
from comigs.federation.clients import model_of
from comigs.federation.run import Client
from comigs.local.reference import reference
from comigs.messages.codecs import Wire, decode, wire
from comigs.messages.update import plus
from comigs.mixture.adapters import adapter_parameters
from comigs.store.state import read_state

KNOWN = "known"  # the part of a client's state that holds what it was sent


def changed(
    client: Client, arrays: Mapping[str, Tensor], root: Path, state_round: int
) -> dict[str, Tensor]:
    """The shared tensors, from those that came for `state_round` and what has changed since.

    The server adds the same decoded difference to the same tensors, so that both sides have the
    same bits.

    Args:
        arrays: what changed, as `payload.down` packs it.
        root: the client's state folder.

    Raises:
        Refusal: the arrays are not such a difference.
    """
    run, payload = client.run, client.config.payload.downward
    if payload.codec == "none":
        raise Refusal("bad-order", "payload.down is none; tensors come whole", "payload.down")
    named = adapter_parameters(model_of(client))
    shapes = {n: tuple(p.shape) for n, p in named.items() if run.method.shares(n) and n in arrays}
    if _wires(arrays) != wire(payload, shapes):
        why = "the server's arrays are not a difference of this client's shared tensors"
        raise Refusal("bad-arrays", why)
    step = decode(payload, {name: array.numpy() for name, array in arrays.items()}, shapes)
    known = read_state(root, state_round)[0].get(KNOWN, {}) if state_round else {}
    return known | plus(step, reference(run, client.number, 1, known, shapes))


def _wires(arrays: Mapping[str, Tensor]) -> dict[str, Wire]:
    return {n: Wire(tuple(a.shape), str(a.dtype).removeprefix("torch.")) for n, a in arrays.items()}
