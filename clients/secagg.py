"""A client's part in secure aggregation (eprint 2017/281), with Flower's primitives.

The server learns the sum of the clients' updates and no single one. Stages, one message each:

- keys: two fresh key pairs; the public keys go to the others.
- shares: a seed for a mask of its own, and the first private key, are split by Shamir's scheme and
  go to the others, each share encrypted for its holder.
- train: the update in fixed point, plus its own mask, plus or minus a mask with each other client.
  The masks between two clients cancel in the sum.
- unmask: of each client that arrived the share of its seed, of each other the share of its key;
  never both of one client, and once only.

What must be kept between messages is in `secagg.json` in the client's state folder. The graph is
complete: with n clients each holds n shares. It protects from a server that follows the protocol
and looks at all it gets. It does not from one that hands out forged public keys, which takes signed
keys, and it hides no number that a client tells beside its update.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    decrypt,
    encrypt,
    generate_shared_key,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from torch import Tensor

from comigs.errors import ComigsError
from comigs.masking import Words, mask, to_words

CURVE, SCALAR = ec.SECP384R1(), 48  # bytes of a private key
State = dict[str, Any]
PublicKeys = Mapping[int, tuple[bytes, bytes]]  # by client: for masks, for shares


def make_keys(root: Path, number: int) -> tuple[bytes, bytes]:
    """Stage keys: draw two key pairs for round `number`, and return the public keys."""
    pairs = [ec.generate_private_key(CURVE) for _ in range(2)]
    scalars = [pair.private_numbers().private_value.to_bytes(SCALAR, "big") for pair in pairs]
    _write(root, {"round": number, "stage": "keys", "keys": [s.hex() for s in scalars]})
    first, second = (public_key_to_bytes(pair.public_key()) for pair in pairs)
    return first, second


def make_shares(
    root: Path, number: int, client: int, public: PublicKeys, threshold: int
) -> dict[int, bytes]:
    """Stage shares: by client, an encrypted share of this client's seed and of its key.

    Raises:
        ComigsError: when the server's list of keys cannot be right.
    """
    state = _read(root, number, "keys")
    masks, shares = (_private(bytes.fromhex(key)) for key in state["keys"])
    own = (public_key_to_bytes(masks.public_key()), public_key_to_bytes(shares.public_key()))
    if tuple(public.get(client, ())) != own or len(public) < threshold:
        raise ComigsError("secure aggregation: the list of public keys is not as it should be")
    if len({key for pair in public.values() for key in pair}) != 2 * len(public):
        raise ComigsError("secure aggregation: two clients have the same public key")
    seed, others = os.urandom(32), sorted(public)
    seeds = create_shares(seed, threshold, len(others))
    keys = create_shares(bytes.fromhex(state["keys"][0]), threshold, len(others))
    out, kept = {}, {}
    for other, a, b in zip(others, seeds, keys, strict=True):
        if other == client:
            kept[client] = [a.hex(), b.hex()]
            continue
        text = json.dumps([number, client, other, a.hex(), b.hex()]).encode()
        out[other] = encrypt(_shared(shares, public[other][1]), text)
    listed = {str(i): [key.hex() for key in pair] for i, pair in public.items()}
    more = {"seed": seed.hex(), "public": listed, "shares": kept, "threshold": threshold}
    _write(root, state | more | {"stage": "shares"})
    return out


def masked(
    root: Path, number: int, client: int, update: Mapping[str, Tensor], inbox: Mapping[int, bytes],
    limit: float, count: int,
) -> Words:  # fmt: skip
    """Stage train: the update under masks.

    Args:
        update: the shared tensors' change in this round.
        inbox: by sender, the share that it encrypted for this client; the senders are those whom
            this client makes masks with.
        limit: of an element.
        count: clients that the sum must have room for.

    Raises:
        ComigsError: when an element is beyond `limit`, or a share cannot be what it should be.
    """
    state = _read(root, number, "shares")
    words = to_words(update, limit, count)
    masks, shares = (_private(bytes.fromhex(key)) for key in state["keys"])
    public = {int(i): [bytes.fromhex(k) for k in pair] for i, pair in state["public"].items()}
    if len(inbox) + 1 < state["threshold"] or client in inbox or not set(inbox) <= set(public):
        raise ComigsError("secure aggregation: the list of clients is not as it should be")
    held = dict(state["shares"])
    words = words + mask(bytes.fromhex(state["seed"]), len(words))
    for other, box in inbox.items():
        told = json.loads(decrypt(_shared(shares, public[other][1]), box))
        if told[:3] != [number, other, client]:
            raise ComigsError("secure aggregation: a share is meant for another client or round")
        held[str(other)] = told[3:]
        between = mask(_shared(masks, public[other][0]), len(words))
        words = words + between if client < other else words - between
    _write(root, state | {"shares": held, "stage": "train"})
    return words


def reveal(root: Path, number: int, arrived: list[int], lost: list[int]) -> dict[int, bytes]:
    """Stage unmask: by client, the share of its seed if it arrived, else the share of its key.

    Raises:
        ComigsError: when that would show a single client's update.
    """
    state = _read(root, number, "train")
    held = {int(client): pair for client, pair in state["shares"].items()}
    if set(arrived) & set(lost) or not set(arrived) | set(lost) <= set(held):
        raise ComigsError("secure aggregation: the list of clients is not as it should be")
    if len(set(arrived)) < max(2, state["threshold"]):
        raise ComigsError("secure aggregation: too few clients arrived; nothing is revealed")
    _write(root, {"round": number, "stage": "done"})
    seeds = {client: bytes.fromhex(held[client][0]) for client in arrived}
    return seeds | {client: bytes.fromhex(held[client][1]) for client in lost}


def _private(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE)


def _shared(private: ec.EllipticCurvePrivateKey, public: bytes) -> bytes:
    return generate_shared_key(private, bytes_to_public_key(public))


def _read(root: Path, number: int, stage: str) -> State:
    try:
        state: State = json.loads((root / "secagg.json").read_bytes())
    except (OSError, ValueError):
        state = {}
    if (state.get("round"), state.get("stage")) != (number, stage):
        raise ComigsError(f"secure aggregation: round {number} is not after its stage {stage!r}")
    return state


def _write(root: Path, state: State) -> None:
    """Replace the file that only this device's user may read."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = root / "secagg.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(state, file)
    temporary.replace(root / "secagg.json")
