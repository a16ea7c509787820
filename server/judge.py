"""What the server accepts from a client: the same checks again that the payload promises."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from comigs.config import RunConfig
from comigs.methods import find_method
from server.exchange import Answer, Client, tensor_bytes, unpack


def judge(answer: Answer, config: RunConfig) -> tuple[bool, dict[str, Any]]:
    """Return whether an answer to a training message is a failure, and its event."""
    client = answer.client
    event: dict[str, Any] = {"client": client.id, "name": client.name}
    if answer.reply is None:
        return True, event | {"reason": answer.reason}
    try:
        update = unpack(answer.reply.content.array_records["arrays"])
        metrics = dict(answer.reply.content.metric_records["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its reply cannot be used ({type(error).__name__}: {error})"
        return True, event | {"reason": reason}
    prunes = find_method(config.method).prune is not None
    if fault := fault_of(update, client, prunes) or fault_of_metrics(metrics):
        return True, event | {"reason": fault}
    own = {"event": "", "round": 0} | event  # a client does not say who or when it is
    said = {key: value for key, value in metrics.items() if key not in own}
    return False, event | said | {"bytes_up": tensor_bytes(update)}


def fault_of(update: Mapping[str, Tensor], client: Client, prunes: bool = False) -> str | None:
    """Why an update cannot be used, or None: the server checks what the payload promises.

    Args:
        prunes: whether the client may lower its LoRA rank.
    """
    shapes = _pruned(update, client.shapes) if prunes else client.shapes
    if extra := sorted(set(update) - set(client.shapes)):
        return f"sent {extra[0]!r}, which it does not share"
    if missing := sorted(set(client.shapes) - set(update)):
        return f"did not send {missing[0]!r}"
    for name, tensor in update.items():
        if tuple(tensor.shape) != shapes[name]:
            return f"sent {name!r} with shape {tuple(tensor.shape)}, not {shapes[name]}"
        if tensor.dtype != torch.float32:
            return f"sent {name!r} as {tensor.dtype}, not float32"
        if not torch.isfinite(tensor).all():
            return f"sent {name!r} with NaN or infinity"
    return None


def _pruned(
    update: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """`shapes` at the rank of the update's first pair, if that is lower."""
    first = next((n for n in sorted(shapes) if ".lora_A." in n and n in update), None)
    if first is None or update[first].ndim != 2:
        return shapes
    rank = max(1, min(update[first].shape[0], shapes[first][0]))
    return {n: (rank, s[1]) if ".lora_A." in n else (s[0], rank) for n, s in shapes.items()}


def fault_of_metrics(metrics: Mapping[str, object]) -> str | None:
    """Why the metrics of an update cannot be used, or None."""
    counts = ("num-examples", "tokens", "router_tokens")
    for key in (*counts, "loss", "train_seconds", "eval_seconds", "seconds"):
        value, least = metrics.get(key), 1 if key == "num-examples" else 0
        if not isinstance(value, (int, float)) or not least <= value < math.inf:
            return f"sent {key} = {value!r}"
    return None
