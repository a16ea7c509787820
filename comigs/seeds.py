"""Every random stream comes from (seed, client, round, purpose), never from global state."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: int | str) -> int:
    """Hash the parts to a 63-bit seed; equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> "torch.Generator":
    """A CPU generator seeded with `derive(*parts)`, of which it uses 32 bits: not for secrets."""
    import torch  # not for those who derive seeds only: it takes 120 MB

    return torch.Generator().manual_seed(derive(*parts))
