"""The server's part in secure aggregation: it passes on keys and shares, and learns a sum.

The stages and what they protect from are told in `clients/comigs_clients/secagg.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.serverapp import Grid
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from torch import Tensor

from comigs.config.privacy import PrivacyConfig
from comigs.errors import ComigsError, one_line
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.masking import MASKED, Words, from_words, mask
from comigs.messages.update import plus
from comigs_server.fleet.exchange import Answer, Client, collect
from comigs_server.fleet.records import add_secagg, listed_in, node_of, secagg_messages
from comigs_server.fleet.shares import restore
from comigs_server.fleet.update import Update

T = TypeVar("T")


@dataclass
class Session:
    """One round of secure aggregation.

    Attributes:
        number: the round.
        count: clients that it began with; the sum has room for so many.
        threshold: shares that restore a secret.
        public: by client, its public keys, for masks and for shares.
        boxes: by receiver and sender, an encrypted share; the receivers go on to train.
        seeds: by client, a hash of the seed of its own mask.
        failed: answers of the clients that did not come so far.
    """

    number: int
    count: int
    threshold: int
    public: dict[int, list[bytes]] = field(default_factory=dict)
    boxes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    seeds: dict[int, bytes] = field(default_factory=dict)
    failed: list[Answer] = field(default_factory=list)


def agree(grid: Grid, run: Run, number: int, clients: Sequence[Client]) -> Session:
    """Collect the clients' keys and shares, before anything is trained."""
    session = Session(number, len(clients), threshold_of(run.config.privacy, len(clients)))

    taken: set[bytes] = set()

    def keys(client: Client, values: Sequence[bytes], to: Sequence[int]) -> list[bytes]:
        first, second = values
        if first == second or taken & {first, second}:
            raise ValueError("its public keys are not its own")
        for value in values:
            if not isinstance(bytes_to_public_key(value).curve, ec.SECP384R1):
                raise ValueError("its public keys are of another curve")
        taken.update(values)
        return [first, second]

    empty = {client.id: _record([], []) for client in clients}
    session.public = _stage(grid, run, session, "keys", clients, empty, keys)
    there = [client for client in clients if client.id in session.public]
    listed = [key for client in there for key in session.public[client.id]]
    public = _record([c.id for c in there], listed) | {"threshold": session.threshold}
    others = {client.id for client in there}

    def shares(client: Client, values: Sequence[bytes], to: Sequence[int]) -> dict[int, bytes]:
        if set(to) != others:
            raise ValueError("its shares are not for everybody")
        return dict(zip(to, values, strict=True))

    said = _stage(
        grid, run, session, "shares", there, dict.fromkeys(others, public), shares
    )  # fmt: skip
    session.boxes = {to: {i: said[i][to] for i in said if i != to} for to in said}
    session.seeds = {i: said[i][i] for i in said}
    return session


def threshold_of(privacy: PrivacyConfig, count: int) -> int:
    """Clients that must stay to the end of a round; more than half, unless configured."""
    return privacy.threshold or max(2, count // 2 + 1)


def give(session: Session, messages: Iterable[Message], clients: Iterable[Client]) -> list[Message]:
    """The train messages of those who still take part, with the shares that others sent them."""
    by_node = {client.node: client.id for client in clients}
    out = []
    for message in messages:
        boxes = session.boxes.get(by_node[node_of(message)])
        if boxes is not None:
            record = _record(sorted(boxes), [boxes[i] for i in sorted(boxes)])
            add_secagg(message, record | {"count": session.count})
            out.append(message)
    return out


def unmask(
    grid: Grid, run: Run, session: Session, words: Mapping[int, Words],
    clients: Iterable[Client],
) -> Words:  # fmt: skip
    """The sum of the updates that arrived.

    Args:
        words: by client that arrived, its masked update.

    Raises:
        ComigsError: when too few clients are left, or too few of their shares are right.
    """
    arrived, lost = sorted(words), sorted(set(session.boxes) - set(words))
    record = _record(arrived, []) | {"lost": lost}
    wanted = [*arrived, *lost]

    def told(client: Client, values: Sequence[bytes], to: Sequence[int]) -> dict[int, bytes]:
        if list(to) != wanted:
            raise ValueError("its shares are not those that were asked for")
        return dict(zip(to, values, strict=True))

    ask = [client for client in clients if client.id in words]
    said = _stage(grid, run, session, "unmask", ask, dict.fromkeys(arrived, record), told)
    if len(said) < session.threshold:
        raise ComigsError(
            f"round {session.number}: secure aggregation needs {session.threshold} clients to the "
            f"end; {len(said)} are left"
        )
    wrong: set[int] = set()

    def secret_of(owner: int, right: Callable[[bytes], bool]) -> bytes:
        shares = {sender: each[owner] for sender, each in said.items()}
        secret, liars = restore(shares, session.threshold, right, wrong)
        wrong.update(liars)
        return secret

    total = sum(words.values())
    assert not isinstance(total, int)
    for owner in arrived:
        seed = secret_of(owner, partial(_is_seed, session.seeds[owner]))
        total = total - mask(seed, len(total))
    for owner in lost:
        key = _private(secret_of(owner, partial(_is_key, session.public[owner][0])))
        for other in arrived:
            shared = generate_shared_key(key, bytes_to_public_key(session.public[other][0]))
            between = mask(shared, len(total))
            total = total - between if other < owner else total + between
    for client in (c for c in ask if c.id in wrong):
        session.failed.append(Answer(client, None, "secure aggregation: it gave a wrong share"))
    return total


def _private(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP384R1())


def _is_seed(known: bytes, secret: bytes) -> bool:
    return len(secret) == 32 and sha256(secret).digest() == known


def _is_key(public: bytes, secret: bytes) -> bool:
    try:
        return public_key_to_bytes(_private(secret).public_key()) == public
    except ValueError:  # no private key of this curve
        return False


def sum_up(
    grid: Grid, run: Run, session: Session, updates: Mapping[int, Update],
    clients: Sequence[Client], sent_to: Callable[[Client], Mapping[str, Tensor]],
) -> Update:  # fmt: skip
    """The mean of the clients that arrived, as one update.

    Args:
        updates: by client, its masked words.
        sent_to: what a client was sent; the same for all.

    Raises:
        ComigsError: as `unmask`.
    """
    words = {i: np.asarray(update.tensors[MASKED].numpy()) for i, update in updates.items()}
    total = unmask(grid, run, session, words, clients)
    shapes = clients[0].shapes
    start = reference(run, 0, session.number, sent_to(clients[0]), shapes)
    summed = from_words(total, shapes, run.config.privacy.range, session.count)
    mean = {name: (part / len(words)).float() for name, part in summed.items()}
    return Update(0, plus(mean, start), 1.0)


def _stage(
    grid: Grid, run: Run, session: Session, name: str, clients: Sequence[Client],
    records: Mapping[int, dict[str, Any]],
    read: Callable[[Client, Sequence[bytes], Sequence[int]], T],
) -> dict[int, T]:  # fmt: skip
    """Send each client its record, and read what the answers hold; `failed` gets the others."""
    told = {client: records[client.id] for client in clients}
    messages = secagg_messages(name, run, session.number, told)
    out: dict[int, T] = {}
    for answer in collect(grid, messages, clients, run.config.server.round_timeout):
        client = answer.client
        try:
            if answer.reply is None:
                raise ValueError(answer.reason)
            said = listed_in(answer.reply)
            out[client.id] = read(client, said.values, said.clients)
        except Exception as error:  # of whatever kind: it is about what a client sent
            reason = f"secure aggregation, stage {name}: {one_line(error)}"
            session.failed.append(Answer(client, None, reason))
    return dict(sorted(out.items()))


def _record(clients: Sequence[int], values: Sequence[bytes]) -> dict[str, Any]:
    return {"clients": list(clients), "values": list(values)}
