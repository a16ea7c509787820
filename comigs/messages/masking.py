"""Numbers whose sum can be computed under masks: fixed point modulo 2^32, and streams of masks."""

import base64
from collections.abc import Mapping

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from torch import Tensor

from comigs.errors import ComigsError

Words = NDArray[np.uint32]
MASKED = "masked"  # name of the one array that travels


def step_of(limit: float, count: int) -> float:
    """The resolution at which the sum of `count` numbers of at most `limit` fits into 32 bits."""
    return limit * count / (2**31 - 1 - count)


def to_words(update: Mapping[str, Tensor], limit: float, count: int) -> Words:
    """All elements, in the order of the names, as multiples of `step_of` modulo 2^32.

    Raises:
        ComigsError: for an element beyond `limit`; nothing is saturated.
    """
    flat = torch.cat([tensor.flatten().double() for _, tensor in sorted(update.items())])
    greatest = float(flat.abs().max())
    if not greatest <= limit:
        raise ComigsError(
            f"an element of the update is {greatest:.4g}; privacy.range is {limit:g}, so it is not "
            "sent"
        )
    return (flat / step_of(limit, count)).round().long().numpy().astype(np.uint32)


def from_words(
    words: Words, shapes: Mapping[str, tuple[int, ...]], limit: float, count: int
) -> dict[str, Tensor]:
    """The reverse of `to_words` for a sum of at most `count` clients, fp64."""
    flat = torch.from_numpy(words.view(np.int32).astype(np.float64)) * step_of(limit, count)
    return shaped(flat, shapes)


def shaped(flat: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers in a row as tensors of these shapes, in the order of their names."""
    sizes = [int(np.prod(shapes[name])) for name in sorted(shapes)]
    parts = zip(sorted(shapes), flat.split(sizes), strict=True)
    return {name: part.reshape(shapes[name]) for name, part in parts}


def mask(key: bytes, size: int) -> Words:
    """`size` words of ChaCha20's key stream.

    Flower's `pseudo_rand_gen` folds a key into 32 bits, which can be searched through.

    Args:
        key: 32 bytes, used for one round only; or 44 bytes of base64, as Flower derives them.
    """
    raw = base64.urlsafe_b64decode(key) if len(key) == 44 else key
    stream = Cipher(ChaCha20(raw, bytes(16)), None).encryptor().update(bytes(4 * size))
    return np.frombuffer(stream, "<u4").astype(np.uint32)
