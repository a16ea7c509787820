"""The only function that builds what leaves a device."""

from collections.abc import Callable, Mapping

import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from comigs.errors import ComigsError


def build_payload(tensors: Mapping[str, Tensor], shares: Callable[[str], bool]) -> ArrayRecord:
    """Pack the tensors that the share mask names, and nothing else.

    Args:
        tensors: every adapter tensor of the client, fp32.
        shares: the method's share mask.

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
        payload[name] = Array(tensor.numpy())
    return ArrayRecord(payload)


def unpack(arrays: ArrayRecord) -> dict[str, Tensor]:
    """Tensors of an ArrayRecord by name."""
    return {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}


def payload_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' values, without framing."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
