"""What the server accepts from a client: the same checks again that the payload promises.

Names, shapes and sizes are checked before anything is decoded, and every fault is one client's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import torch
from flwr.app import Array, Message
from numpy.lib import format as npy
from torch import Tensor

from comigs.config.privacy import PayloadConfig
from comigs.errors import ComigsError, flat, one_line
from comigs.federation.layers import of_round
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.codecs import Wire, decode, wire
from comigs.messages.fields import unknown
from comigs.messages.masking import MASKED
from comigs.messages.reply import Broken, Reported, check_asked, read_reported
from comigs.messages.update import minus, norm_of, plus, proper
from comigs_server.fleet.exchange import Answer, Client
from comigs_server.fleet.records import Arrays, parts_of, unpack
from comigs_server.fleet.update import Update

HEADER = 1024  # bytes; a NumPy header is 128 or a little more
ShareOf = Callable[[Client], Mapping[str, Tensor]]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Accepted:
    """An update that can be combined, and what the client told about it.

    Attributes:
        bytes_up: of the tensors' values as they travelled.
        norm: L2 norm of the update; None where the server does not see it.
    """

    client: Client
    update: Update
    reported: Reported
    bytes_up: int
    norm: float | None


@dataclass(frozen=True)
class Fault:
    """Why there is nothing to combine of a client."""

    client: Client
    reason: str


def judge(answer: Answer, run: Run, number: int, sent_to: ShareOf) -> Accepted | Fault:
    """What the answer to a training message is worth.

    Args:
        number: the round.
        sent_to: what a client was sent for it.
    """
    client = answer.client
    if answer.reply is None:
        return Fault(client, answer.reason)
    try:
        return _accept(answer.reply, client, run, number, sent_to)
    except Unfit as error:
        return Fault(client, str(error))
    except Broken as error:
        return Fault(client, flat(f"its reply {error}"))
    except Exception as error:  # of whatever kind: it is about what a client sent
        return Fault(client, flat(f"its reply cannot be used ({one_line(error)})"))


class Unfit(ComigsError):
    """An update that is whole, but not what was asked for."""


def _accept(reply: Message, client: Client, run: Run, number: int, sent_to: ShareOf) -> Accepted:
    arrays, metrics = parts_of(reply)
    if isinstance(of := metrics.get("round"), int) and of != number:
        raise Broken(f"is of round {flat(str(of), 12)}; this is round {number}")
    reported = read_reported(metrics)
    check_asked(reported.metrics, run.config.log.metrics or ())
    if client.examples is not None and reported.num_examples > client.examples:
        counts = f"{reported.num_examples} examples; it said {client.examples} at first"
        raise Unfit(f"counts {counts}")
    weight = float(reported.num_examples) if run.config.server.weighting == "samples" else 1.0
    if run.may_rest and not arrays:
        return Accepted(client, Update(client.id, {}, weight), reported, 0, None)
    check_arrays(arrays, client, run, number)
    size = sum(one.bytes for one in expected(arrays, client, run, number).values())
    if run.config.privacy.secure != "none":
        return Accepted(client, Update(client.id, unpack(arrays), weight), reported, size, None)
    shapes = shapes_of(arrays, client, run, number)
    start = reference(run, client.id, number, sent_to(client), shapes)
    tensors = _decoded(arrays, shapes, run.config.payload, start)
    norm = check_values(tensors, start, run.config.server.max_norm)
    return Accepted(client, Update(client.id, tensors, weight), reported, size, norm)


def expected(arrays: Arrays, client: Client, run: Run, number: int) -> dict[str, Wire]:
    """What a client should send; of its LoRA rank, where it may lower that, as far as it says."""
    shapes = shapes_of(arrays, client, run, number)
    if run.config.privacy.secure != "none":
        return {MASKED: Wire((sum(map(math.prod, shapes.values())),), "uint32")}
    return wire(run.config.payload, shapes)


def shapes_of(
    arrays: Arrays, client: Client, run: Run, number: int
) -> Mapping[str, tuple[int, ...]]:
    """The shapes of what the client trains: at the rank of the first pair, if it may prune."""
    shapes = of_round(run.config, client.id, number, client.shapes)
    if run.method.prune is None:
        return shapes
    first = next((n for n in sorted(shapes) if ".lora_A." in n and n in arrays), None)
    if first is None or len(arrays[first].shape) != 2:
        return shapes
    rank = max(1, min(arrays[first].shape[0], shapes[first][0]))
    return {n: (rank, s[1]) if ".lora_A." in n else (s[0], rank) for n, s in shapes.items()}


def check_arrays(arrays: Arrays, client: Client, run: Run, number: int) -> None:
    """Refuse arrays that cannot be what the client was asked for; nothing is decoded.

    Raises:
        Unfit: what is wrong with them.
    """
    wanted = expected(arrays, client, run, number)
    if (extra := unknown(arrays, frozenset(wanted))) is not None:
        raise Unfit(f"sent {extra!r}, which it does not share")
    if missing := sorted(set(wanted) - set(arrays)):
        raise Unfit(f"did not send {missing[0]!r}")
    for name, array in arrays.items():
        want = wanted[name]
        if len(array.data) > want.bytes + HEADER:
            raise Unfit(f"sent {name!r} in {len(array.data)} bytes; {want.bytes} are enough")
        shape, dtype = _header(array)
        if not shape == tuple(array.shape) == want.shape:
            raise Unfit(f"sent {name!r} with shape {shape}, not {want.shape}")
        if not dtype == array.dtype == want.dtype:
            raise Unfit(f"sent {name!r} as {dtype}, not {want.dtype}")


def _header(array: Array) -> tuple[tuple[int, ...], str]:
    """Shape and dtype that NumPy will make of the data."""
    file = BytesIO(array.data)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array is not in NumPy's format 1.0")
    shape, _, dtype = npy.read_array_header_1_0(file, max_header_size=HEADER)
    return shape, str(dtype)


def _decoded(
    arrays: Arrays, shapes: Shapes, payload: PayloadConfig, start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    values = {name: array.numpy() for name, array in arrays.items()}
    tensors = decode(payload, values, shapes)
    return tensors if payload.codec == "none" else plus(tensors, start)


def check_values(
    tensors: Mapping[str, Tensor], start: Mapping[str, Tensor], limit: float | None
) -> float:
    """The L2 norm of an update, without what travels beside it.

    Args:
        start: what the tensors started from (`comigs.local.reference`).
        limit: the greatest norm; None for any.

    Raises:
        Unfit: a tensor cannot be averaged, or the update is too long.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise Unfit(f"sent {name!r} with NaN or infinity")
    norm = norm_of(minus(proper(tensors), start))
    if limit is not None and not norm <= limit:
        raise Unfit(f"sent an update of norm {norm:.4g}; server.max_norm is {limit:g}")
    return norm
