"""The only functions that build what leaves a device: `Message`s are made here and nowhere else."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from comigs.config.privacy import PayloadConfig
from comigs.errors import ComigsError
from comigs.messages.codecs import Arrays, encode
from comigs.messages.fields import ABOUT, METRICS, ROW, unknown, with_metrics

AS_THEY_ARE = PayloadConfig()


def build_payload(
    tensors: Mapping[str, Tensor],
    shares: Callable[[str], bool],
    codec: PayloadConfig = AS_THEY_ARE,
    mask: Callable[[Mapping[str, Tensor]], Arrays] | None = None,
) -> ArrayRecord:
    """Pack the tensors that the share mask names, and nothing else.

    Args:
        tensors: every adapter tensor of the client, fp32; see `comigs.local.outgoing`.
        shares: the method's share mask.
        codec: how they are packed.
        mask: packs them instead, so that only a sum over clients can be read.

    Raises:
        ComigsError: for a tensor that is not fp32 or not finite.
    """
    payload = {}
    for name, tensor in sorted(tensors.items()):
        if not shares(name):
            continue
        if tensor.dtype != torch.float32:
            raise ComigsError(f"tensor {name!r} is {tensor.dtype}; only float32 travels")
        if not torch.isfinite(tensor).all():
            raise ComigsError(f"tensor {name!r} holds NaN or infinity; it is not sent")
        payload[name] = tensor
    arrays = mask(payload) if mask else encode(codec, payload)
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def train_reply(
    message: Message,
    arrays: ArrayRecord,
    metrics: Mapping[str, float],
    number: int,
    asked: Iterable[str] = (),
) -> Message:
    """The reply to a train message: what `build_payload` made, numbers about training, the round.

    Args:
        asked: `log.metrics`.

    Raises:
        ComigsError: for a number that is not in `comigs.messages.fields`.
    """
    told = MetricRecord({**_known(metrics, with_metrics(METRICS, asked)), "round": number})
    return Message(RecordDict({"arrays": arrays, "metrics": told}), reply_to=message)


def final_reply(
    message: Message, rows: Iterable[Mapping[str, Any]], asked: Iterable[str] = ()
) -> Message:
    """The reply of the final evaluation: one row of numbers for each test stream.

    Args:
        asked: `log.metrics`.

    Raises:
        ComigsError: as `train_reply`.
    """
    known = with_metrics(ROW, asked)
    told = [_known(row, known) for row in rows]
    metrics = MetricRecord({"num-examples": sum(int(row["test_tokens"]) for row in told)})
    final = ConfigRecord({"json": json.dumps(told)})
    return Message(RecordDict({"metrics": metrics, "final": final}), reply_to=message)


def hello_reply(message: Message, about: Mapping[str, Any]) -> Message:
    """The reply of a client that introduces itself.

    Raises:
        ComigsError: as `train_reply`.
    """
    hello = ConfigRecord({"json": json.dumps(_known(about, ABOUT))})
    return Message(RecordDict({"hello": hello}), reply_to=message)


def secagg_reply(message: Message, clients: Sequence[int], values: Sequence[bytes]) -> Message:
    """The reply of a stage of secure aggregation: keys or shares, of or for these clients."""
    record = ConfigRecord({"clients": list(clients), "values": list(values)})
    return Message(RecordDict({"secagg": record}), reply_to=message)


def _known(values: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if (stranger := unknown(values, known)) is not None:
        raise ComigsError(
            f"{stranger!r} does not leave the device: comigs/messages/fields.py lacks it"
        )
    return dict(values)


def unpack(arrays: ArrayRecord) -> dict[str, Tensor]:
    """Tensors of an ArrayRecord by name."""
    return {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}


def payload_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' values, without framing."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
