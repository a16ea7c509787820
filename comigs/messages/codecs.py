"""Codecs: how updates travel from a client to the server, and what has changed back to it.

`bf16` rounds each number. `int8` has one float32 scale for each index of a tensor's shorter
dimension (for a LoRA matrix: for each of its components). `topk-int8` has of each tensor the
greatest elements and one scale, with a bit per element that says which they are; in `topk-int4`
they have 15 levels, two of them in a byte. `int8-topk` and `int4-topk` round first and keep the
greatest of what is rounded, of equal ones the first: as many bytes, and never a smaller error
(cf. arXiv 2405.20935), since this order cannot tell which of two equals was the greater.

What is encoded is the update, never the weights: a step far smaller than a weight would be lost in
the weight's rounding, round after round. What rounding takes off an update is added to the next one
(error feedback, arXiv 1809.07599), unless the method says otherwise (`Method.feedback`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comigs.config.privacy import PayloadConfig
from comigs.messages.sparse import SPARSE

SCALE, MASK = "|scale", "|mask"  # of a tensor's further arrays
Arrays = dict[str, NDArray[np.generic]]


def name_of(array: str) -> str:
    """The tensor that an array belongs to."""
    return array.removesuffix(SCALE).removesuffix(MASK)


@dataclass(frozen=True)
class Wire:
    """Shape and dtype of one array that travels."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def wire(payload: PayloadConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Wire]:
    """Every array that carries tensors of these shapes, by name."""
    arrays: dict[str, Wire] = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        match payload.codec:
            case "none":
                arrays[name] = Wire(shape)
            case "bf16":
                arrays[name] = Wire(shape, "int16")  # Flower knows no bfloat16
            case "int8":
                arrays[name] = Wire(shape, "int8")
                arrays[name + SCALE] = Wire((min(shape, default=1),))
            case sparse:
                numbers = SPARSE[sparse]
                arrays[name] = Wire((numbers.size(_kept(payload, size)),), numbers.dtype)
                arrays[name + SCALE] = Wire((1,))
                arrays[name + MASK] = Wire((math.ceil(size / 8),), "uint8")
    return arrays


def wire_bytes(payload: PayloadConfig, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of the values that travel, without framing."""
    return sum(array.bytes for array in wire(payload, shapes).values())


def encode(payload: PayloadConfig, tensors: Mapping[str, Tensor]) -> Arrays:
    """The arrays that travel, as `wire` describes them.

    Args:
        tensors: fp32, finite: an update, or without a codec what was trained.
    """
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        match payload.codec:
            case "none":
                arrays[name] = tensor.numpy()
            case "bf16":
                arrays[name] = tensor.bfloat16().contiguous().view(torch.int16).numpy()
            case "int8":
                scale = _scales(tensor)
                arrays[name] = _quantised(tensor, scale).numpy()
                arrays[name + SCALE] = scale.flatten().numpy()
            case codec:
                sparse, flat = SPARSE[codec], tensor.flatten()
                scale = flat.abs().max().reshape(1) / sparse.levels
                rounded = _quantised(flat, scale, sparse.levels)
                weighed = rounded if sparse.rounds_first else flat
                mask = _greatest(weighed, _kept(payload, flat.numel()))
                arrays[name] = sparse.pack(rounded[mask])
                arrays[name + SCALE] = scale.numpy()
                arrays[name + MASK] = np.packbits(mask.numpy())
    return arrays


def decode(
    payload: PayloadConfig, arrays: Mapping[str, NDArray[np.generic]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:  # fmt: skip
    """The tensors, fp32, as near to those of `encode` as the codec allows.

    Args:
        arrays: of the shapes and dtypes that `wire` names.
        shapes: of the tensors.

    Raises:
        ValueError: when a mask does not name as many elements as there are.
    """
    tensors = {}
    for name, shape in shapes.items():
        values = torch.from_numpy(arrays[name])
        match payload.codec:
            case "none":
                tensors[name] = values
            case "bf16":
                tensors[name] = values.view(torch.bfloat16).float()
            case "int8":
                scale = torch.from_numpy(arrays[name + SCALE])
                tensors[name] = values.float() * scale.reshape(_of_scales(shape))
            case codec:
                count = _kept(payload, size := math.prod(shape))
                bits = np.unpackbits(arrays[name + MASK])  # type: ignore[arg-type]
                if bits.sum() != count or bits[size:].any():
                    raise ValueError(f"the mask of {name!r} does not name {count} elements")
                flat = torch.zeros(size)
                scale = torch.from_numpy(arrays[name + SCALE])
                values = SPARSE[codec].unpack(arrays[name], count)
                flat[torch.from_numpy(bits[:size]).bool()] = values.float() * scale
                tensors[name] = flat.reshape(shape)
    return tensors


def unsent(payload: PayloadConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `decode` of `encode` lacks: it is added to the next round's update."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arrived = decode(payload, encode(payload, tensors), shapes)
    return {name: tensor - arrived[name] for name, tensor in tensors.items()}


def _kept(payload: PayloadConfig, size: int) -> int:
    return max(1, math.ceil(payload.keep * size))


def _greatest(flat: Tensor, count: int) -> Tensor:
    """A mask of the `count` greatest elements; of equal ones the first."""
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[flat.abs().argsort(descending=True, stable=True)[:count]] = True
    return mask


def _of_scales(shape: tuple[int, ...]) -> list[int]:
    """The shape of a tensor's scales, which multiplies with the tensor's."""
    shorter = min(range(len(shape)), key=shape.__getitem__) if shape else -1
    return [size if dim == shorter else 1 for dim, size in enumerate(shape)]


def _scales(tensor: Tensor) -> Tensor:
    shape = _of_scales(tuple(tensor.shape))
    others = [dim for dim, size in enumerate(shape) if size != tensor.shape[dim]]
    greatest = tensor.abs().amax(others, keepdim=True) if others else tensor.abs()
    return (greatest / 127).reshape(shape)


def _quantised(tensor: Tensor, scale: Tensor, levels: int = 127) -> Tensor:
    steps = torch.where(scale > 0, tensor / scale, torch.zeros(()))
    return steps.round().clamp(-levels, levels).to(torch.int8).contiguous()
