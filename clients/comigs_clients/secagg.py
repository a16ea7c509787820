"""A client's part in secure aggregation (eprint 2017/281), with Flower's primitives.

The server learns the sum of the clients' updates and no single one. Stages, one message each:

- keys: two fresh key pairs; the public keys go to the others.
- shares: a seed for a mask of its own, and the first private key, are split by Shamir's scheme and
  go to the others, each share encrypted for its holder; the server gets a hash of the seed, so
  that it can tell a wrong share.
- train: the update in fixed point, plus its own mask, plus or minus a mask with each other client.
  The masks between two clients cancel in the sum.
- unmask: of each client that arrived the share of its seed, of each other the share of its key;
  never both of one client, and once only.

What must be kept between messages is in `secagg.json` in the client's state folder. A round has one
set of keys, one list of clients, one masked update and one story of who was lost, also when it is
repeated after a crash: the same message gets the same answer, another one of that round none, and
no earlier round is answered any more.

The graph is complete: with n clients each holds n shares, and more than half of them restore a
secret, so no two halves can be told two stories. It protects from a server that looks at all it
gets and sends the others' messages on. It does not from one that hands out forged public keys,
which takes signed keys, and it hides no number that a client tells beside its update.
"""

import hashlib
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

from comigs.errors import BadInput, Refusal
from comigs.messages.masking import Words, mask, to_words
from comigs.store.plain import MIB, read_plain

STAGES = ("keys", "shares", "train", "done")
MOST_STATE = 256 * MIB
CURVE, SCALAR = ec.SECP384R1(), 48  # bytes of a private key
State = dict[str, Any]
PublicKeys = Mapping[int, tuple[bytes, bytes]]  # by client: for masks, for shares


def make_keys(root: Path, number: int) -> tuple[bytes, bytes]:
    """Stage keys: draw two key pairs for round `number`, and return the public keys.

    Raises:
        Refusal: a later round has begun.
    """
    state = _load(root)
    if number < state.get("round", 0):
        raise _refuse(f"round {number} is over; round {state['round']} has begun")
    if number > state.get("round", 0):
        pairs = [ec.generate_private_key(CURVE) for _ in range(2)]
        scalars = [pair.private_numbers().private_value.to_bytes(SCALAR, "big") for pair in pairs]
        state = {"round": number, "stage": "keys", "keys": [s.hex() for s in scalars]}
        _write(root, state)
    elif state["stage"] == "done":  # the round is repeated from its start
        _write(root, state | {"stage": "train"})
    return _own_keys(state)


def make_shares(
    root: Path, number: int, client: int, public: PublicKeys, threshold: int
) -> dict[int, bytes]:
    """Stage shares: by client, an encrypted share of this client's seed and of its key.

    Raises:
        Refusal: when the server's list of keys cannot be right, is not the one it gave before, or
            half of the clients could restore a secret.
    """
    state = _read(root, number, "keys")
    if not len(public) < 2 * threshold <= 2 * len(public):
        count = len(public)
        raise _refuse(f"threshold is {threshold}; it must be more than half of {count} clients")
    listed = {str(i): [key.hex() for key in pair] for i, pair in sorted(public.items())}
    if "boxes" in state:
        if (state["public"], state["threshold"]) != (listed, threshold):
            raise _refuse("this round began with another list of clients")
        return {int(i): bytes.fromhex(box) for i, box in state["boxes"].items()}
    if tuple(public.get(client, ())) != _own_keys(state):
        raise _refuse("the list of public keys is not as it should be")
    if len({key for pair in public.values() for key in pair}) != 2 * len(public):
        raise _refuse("two clients have the same public key")
    shares = _private(bytes.fromhex(state["keys"][1]))
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
    more = {"seed": seed.hex(), "public": listed, "shares": kept, "threshold": threshold}
    boxes = {str(i): box.hex() for i, box in out.items()}
    _write(root, state | more | {"stage": "shares", "client": client, "boxes": boxes})
    return out


def commitment(root: Path, number: int) -> bytes:
    """What the server can tell the seed by, once others have given their shares of it."""
    return hashlib.sha256(bytes.fromhex(_read(root, number, "shares")["seed"])).digest()


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
        Refusal: when a share cannot be what it should be, or another update of this round, or the
            same for other clients, went out before.
        ComigsError: when an element is beyond `limit`.
    """
    state = _read(root, number, "shares")
    words = to_words(update, limit, count)
    sent = {
        "with": sorted(inbox),
        "update": hashlib.sha256(words.tobytes() + str(count).encode()).hexdigest(),
    }
    if state.get("sent", sent) != sent:
        raise _refuse(f"round {number} is not after its stage 'shares': it went out otherwise")
    masks, shares = (_private(bytes.fromhex(key)) for key in state["keys"])
    public = {int(i): [bytes.fromhex(k) for k in pair] for i, pair in state["public"].items()}
    there = len(inbox) + 1
    if there < state["threshold"] or client in inbox or not set(inbox) <= set(public):
        raise _refuse("the list of clients is not as it should be")
    if count < len(public):
        raise _refuse("the count of clients is not as it should be")
    held = {str(client): state["shares"][str(client)]}
    words = words + mask(bytes.fromhex(state["seed"]), len(words))
    for other, box in inbox.items():
        told = _opened(_shared(shares, public[other][1]), box)
        if told[:3] != [number, other, client]:
            raise _refuse("a share is meant for another client or round")
        held[str(other)] = told[3:]
        between = mask(_shared(masks, public[other][0]), len(words))
        words = words + between if client < other else words - between
    _write(root, state | {"stage": "train", "shares": held, "sent": sent})
    return words


def reveal(root: Path, number: int, arrived: list[int], lost: list[int]) -> dict[int, bytes]:
    """Stage unmask: by client, the share of its seed if it arrived, else the share of its key.

    Raises:
        Refusal: when that would show a single client's update.
    """
    state = _read(root, number, "train", "done")
    held = {int(client): pair for client, pair in state["shares"].items()}
    story = {"arrived": sorted(arrived), "lost": sorted(lost)}
    if state.get("story", story) != story:
        raise _refuse(f"round {number} is not after its stage 'train': it was told otherwise")
    if sorted(arrived + lost) != sorted(held) or state["client"] not in arrived:
        raise _refuse("the list of clients is not as it should be")
    if len(arrived) < max(2, state["threshold"]):
        raise _refuse("too few clients arrived; nothing is revealed")
    _write(root, state | {"story": story, "stage": "done"})
    seeds = {client: bytes.fromhex(held[client][0]) for client in arrived}
    return seeds | {client: bytes.fromhex(held[client][1]) for client in lost}


def _own_keys(state: State) -> tuple[bytes, bytes]:
    first, second = (_private(bytes.fromhex(key)) for key in state["keys"])
    return public_key_to_bytes(first.public_key()), public_key_to_bytes(second.public_key())


def _opened(key: bytes, box: bytes) -> list[Any]:
    try:
        told = json.loads(decrypt(key, box))
        if not (isinstance(told, list) and len(told) == 5 and all(map(bytes.fromhex, told[3:]))):
            raise ValueError("not a share")
    except Exception:  # the cipher's, or about what is inside
        raise _refuse("a share cannot be opened") from None
    return told


def _refuse(why: str) -> Refusal:
    return Refusal("secagg", f"secure aggregation: {why}")


def _private(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE)


def _shared(private: ec.EllipticCurvePrivateKey, public: bytes) -> bytes:
    return generate_shared_key(private, bytes_to_public_key(public))


def _load(root: Path) -> State:
    path = root / "secagg.json"
    if not os.path.lexists(path):
        return {}
    try:
        state: State = json.loads(read_plain(path, root, MOST_STATE))
        return state | {"round": int(state["round"])}
    except (OSError, ValueError, TypeError, KeyError, BadInput):
        raise _refuse(f"{path} is damaged; this device is out of the run") from None


def _read(root: Path, number: int, after: str, last: str = "train") -> State:
    """The state of a round that has got as far as the stage `after`, and not beyond `last`."""
    state = _load(root)
    allowed = STAGES[STAGES.index(after) : STAGES.index(last) + 1]
    if state.get("round") != number or state["stage"] not in allowed:
        raise _refuse(f"round {number} is not after its stage {after!r}")
    return state


def _write(root: Path, state: State) -> None:
    """Replace the file that only this device's user may read."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = root / "secagg.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(root / "secagg.json")
