"""What the server accepts from a client: the same checks again that the payload promises.

Names, shapes and sizes are checked before anything is decoded, and every fault is one client's.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any

import torch
from flwr.app import Array, Message
from numpy.lib import format as npy
from torch import Tensor

from comigs.config.settings import RunConfig
from comigs.errors import flat, one_line
from comigs.local.reference import reference
from comigs.messages.codecs import Wire, decode, wire
from comigs.messages.fields import unknown
from comigs.messages.masking import MASKED
from comigs.messages.reply import Broken, read_reported
from comigs.messages.update import minus, norm_of, plus
from comigs.methods import find_method
from comigs_server.fleet.exchange import Answer, Client, pack

HEADER = 1024  # bytes; a NumPy header is 128 or a little more
ShareOf = Callable[[Client], Mapping[str, Tensor]]
Arrays = Mapping[str, Array]
Shapes = Mapping[str, tuple[int, ...]]
Start = Callable[[Shapes], Mapping[str, Tensor]]


def judge(
    answer: Answer, config: RunConfig, number: int, sent_to: ShareOf
) -> tuple[bool, dict[str, Any]]:
    """Return whether an answer to a training message is a failure, and its event.

    An accepted reply's arrays are decoded in place: from then on they are what the client trained.

    Args:
        number: the round.
        sent_to: what a client was sent for it.
    """
    client = answer.client
    event: dict[str, Any] = {"client": client.id, "name": client.name}
    if answer.reply is None:
        return True, event | {"reason": answer.reason}
    try:
        arrays, metrics = _parts(answer.reply)
        if isinstance(of := metrics.get("round"), int) and of != number:
            raise Broken(f"is of round {flat(str(of), 12)}; this is round {number}")
        metrics = read_reported(metrics)
        fault = fault_of_metrics(metrics, client) or fault_of(arrays, client, config)
        if fault:
            return True, event | {"reason": fault}
        if config.privacy.secure == "none":
            start = partial(_start, client, config, number, sent_to)
            update = _decoded(arrays, client, config, start)
            fault = fault_of_values(update, config, start)
    except Broken as error:
        return True, event | {"reason": flat(f"its reply {error}")}
    except Exception as error:  # of whatever kind: it is about what a client sent
        return True, event | {"reason": flat(f"its reply cannot be used ({one_line(error)})")}
    if fault:
        return True, event | {"reason": fault}
    if config.payload.codec != "none":
        answer.reply.content["arrays"] = pack(update)
    said = {key: value for key, value in metrics.items() if key != "round"}
    size = sum(one.bytes for one in expected(arrays, client, config).values())
    if config.privacy.secure == "none":
        event["norm"] = norm_of(minus(update, start(shapes_of(arrays, client, config))))
    return False, event | said | {"bytes_up": size}


def _parts(reply: Message) -> tuple[Arrays, dict[str, Any]]:
    if (stranger := unknown(reply.content, frozenset({"arrays", "metrics"}))) is not None:
        raise Broken(f"holds {stranger[:60]!r}")
    metrics = dict(reply.content.metric_records["metrics"])
    return dict(reply.content.array_records["arrays"]), metrics


def expected(arrays: Arrays, client: Client, config: RunConfig) -> dict[str, Wire]:
    """What a client should send; of its LoRA rank, where it may lower that, as far as it says."""
    shapes = shapes_of(arrays, client, config)
    if config.privacy.secure != "none":
        return {MASKED: Wire((sum(map(math.prod, shapes.values())),), "uint32")}
    return wire(config.payload, shapes)


def shapes_of(arrays: Arrays, client: Client, config: RunConfig) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the client's tensors: at the rank of the first pair, if it may prune."""
    shapes = client.shapes
    if find_method(config.method).prune is None:
        return shapes
    first = next((n for n in sorted(shapes) if ".lora_A." in n and n in arrays), None)
    if first is None or len(arrays[first].shape) != 2:
        return shapes
    rank = max(1, min(arrays[first].shape[0], shapes[first][0]))
    return {n: (rank, s[1]) if ".lora_A." in n else (s[0], rank) for n, s in shapes.items()}


def fault_of(arrays: Arrays, client: Client, config: RunConfig) -> str | None:
    """Why arrays cannot be what the client was asked for, or None; nothing is decoded."""
    wanted = expected(arrays, client, config)
    if (extra := unknown(arrays, frozenset(wanted))) is not None:
        return f"sent {extra!r}, which it does not share"
    if missing := sorted(set(wanted) - set(arrays)):
        return f"did not send {missing[0]!r}"
    for name, array in arrays.items():
        want = wanted[name]
        if len(array.data) > want.bytes + HEADER:
            return f"sent {name!r} in {len(array.data)} bytes; {want.bytes} are enough"
        shape, dtype = _header(array)
        if not shape == tuple(array.shape) == want.shape:
            return f"sent {name!r} with shape {shape}, not {want.shape}"
        if not dtype == array.dtype == want.dtype:
            return f"sent {name!r} as {dtype}, not {want.dtype}"
    return None


def _header(array: Array) -> tuple[tuple[int, ...], str]:
    """Shape and dtype that NumPy will make of the data."""
    file = BytesIO(array.data)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array is not in NumPy's format 1.0")
    shape, _, dtype = npy.read_array_header_1_0(file, max_header_size=HEADER)
    return shape, str(dtype)


def _start(
    client: Client, config: RunConfig, number: int, sent_to: ShareOf, shapes: Shapes
) -> dict[str, Tensor]:
    return reference(config, client.id, number, sent_to(client), shapes)


def _decoded(arrays: Arrays, client: Client, config: RunConfig, start: Start) -> dict[str, Tensor]:
    shapes = shapes_of(arrays, client, config)
    values = {name: array.numpy() for name, array in arrays.items()}
    tensors = decode(config.payload, values, shapes)
    return tensors if config.payload.codec == "none" else plus(tensors, start(shapes))


def fault_of_values(update: Mapping[str, Tensor], config: RunConfig, start: Start) -> str | None:
    """Why decoded tensors cannot be averaged, or None.

    Args:
        start: what tensors of these shapes started from (`comigs.local.reference`).
    """
    for name, tensor in update.items():
        if not torch.isfinite(tensor).all():
            return f"sent {name!r} with NaN or infinity"
    limit = config.server.max_norm
    if limit is None:
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in update.items()}
    norm = norm_of(minus(update, start(shapes)))
    if not norm <= limit:
        return f"sent an update of norm {norm:.4g}; server.max_norm is {limit:g}"
    return None


def fault_of_metrics(metrics: Mapping[str, Any], client: Client) -> str | None:
    """Why the metrics of an update cannot be used, or None.

    Args:
        metrics: as `read_reported` returns them.
    """
    if client.examples is not None and metrics["num-examples"] > client.examples:
        return f"counts {metrics['num-examples']} examples; it said {client.examples} at first"
    return None
