"""What is in the folder of a federation, however it was made."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comigs.backbone.base import load_tokenizer
from comigs.data.corpus import SPLITS, client_names, read_split
from comigs.data.encoding import encode
from comigs.data.leakage import paragraphs

COMPARED = 12  # clients in the matrix
WORD = re.compile(r"\w+")
SEVERAL = -1  # in place of a client's number


@dataclass(frozen=True)
class SplitFacts:
    """One split of one client.

    Attributes:
        parts: blocks between blank lines, or lines where the client's text has no blank ones.
        own: different parts that another split of the client has, too.
        others: different parts that another client has, too.
    """

    client: str
    split: str
    parts: int
    characters: int
    tokens: int
    own: int
    others: int


@dataclass(frozen=True)
class Description:
    """A federation.

    Attributes:
        divergence: of the first clients: Jensen-Shannon in bits of the words of their training
            text, 0 for the same and 1 where they share no word.
    """

    clients: tuple[str, ...]
    splits: tuple[SplitFacts, ...]
    divergence: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class _Read:
    """What is kept of one split while the others are read."""

    parts: int
    characters: int
    tokens: int
    digests: frozenset[bytes]


def describe(name: str, model: str, watch: Callable[[str, int, int | None], None]) -> Description:
    """Read every text of a federation: a folder, or a bundled one by its name.

    Args:
        model: whose tokenizer counts.

    Raises:
        BadInput: there is no such federation or model, or a text is missing.
    """
    clients = client_names(name)
    tokenizer = load_tokenizer(model)
    read: dict[tuple[int, str], _Read] = {}
    words: list[Counter[str]] = []
    for number, client in enumerate(clients):
        watch("reading", number, len(clients))
        kind = ""
        for split in SPLITS:
            text = read_split(name, client, split)
            kind = kind or ("code" if "\n\n" in text.strip() else "text")
            parts = paragraphs(text, kind)
            digests = frozenset(map(_digest, parts))
            tokens = len(encode(tokenizer, text))
            read[number, split] = _Read(len(parts), len(text), tokens, digests)
            if split == "train" and number < COMPARED:
                words.append(Counter(word[0].lower() for word in WORD.finditer(text)))
    watch("comparing", 0, None)
    owners = _owners(read)
    facts = [_facts(clients[number], number, split, read, owners) for number, split in read]
    matrix = tuple(tuple(divergence(one, two) for two in words) for one in words)
    return Description(clients, tuple(facts), matrix)


def divergence(one: Mapping[str, int], two: Mapping[str, int]) -> float:
    """Jensen-Shannon divergence, in bits, of two counts of words."""
    if not one or not two:
        return 0.0 if not one and not two else 1.0
    total, other = sum(one.values()), sum(two.values())
    bits = 0.0
    for word in one.keys() | two.keys():
        p, q = one.get(word, 0) / total, two.get(word, 0) / other
        middle = (p + q) / 2
        bits += sum(x * math.log2(x / middle) / 2 for x in (p, q) if x)
    return min(max(bits, 0.0), 1.0)


def _owners(read: Mapping[tuple[int, str], _Read]) -> dict[bytes, int]:
    """Whose a part is; `SEVERAL` for what more than one client has."""
    owners: dict[bytes, int] = {}
    for (number, _), split in read.items():
        for digest in split.digests:
            if owners.setdefault(digest, number) != number:
                owners[digest] = SEVERAL
    return owners


def _facts(
    client: str,
    number: int,
    split: str,
    read: Mapping[tuple[int, str], _Read],
    owners: Mapping[bytes, int],
) -> SplitFacts:
    this = read[number, split]
    elsewhere = [read[number, other].digests for other in SPLITS if other != split]
    own = len(this.digests & frozenset().union(*elsewhere))
    others = sum(owners[digest] == SEVERAL for digest in this.digests)
    return SplitFacts(client, split, this.parts, this.characters, this.tokens, own, others)


def _digest(part: str) -> bytes:
    return hashlib.blake2b(part.encode(), digest_size=12).digest()
