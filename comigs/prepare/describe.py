"""What is in the folder of a federation, however it was made."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comigs.backbone.base import load_tokenizer
from comigs.data.chats import line_of
from comigs.data.corpus import client_names, holds_chats, read_split
from comigs.data.encoding import encode
from comigs.data.examples import Source, chats_of, encoded
from comigs.data.leakage import paragraphs
from comigs.data.names import SPLITS

COMPARED = 12  # clients in the matrix
WORD = re.compile(r"\w+")
SEVERAL = -1  # in place of a client's number


@dataclass(frozen=True)
class SplitFacts:
    """One split of one client.

    Attributes:
        parts: blocks between blank lines, or lines where the client's text has no blank ones; of
            chats, each.
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
    chats: "Chats | None" = None


@dataclass(frozen=True)
class Chats:
    """What there is to say of a split of chats.

    Attributes:
        answers: tokens of answers.
        longest: tokens of the longest chat.
        silent: chats without any answer.
    """

    answers: int
    longest: int
    silent: int


@dataclass(frozen=True)
class Description:
    """A federation.

    Attributes:
        divergence: of the first clients: Jensen-Shannon in bits of the words of their training
            text, 0 for the same and 1 where they share no word.
        chance: their mean divergence of every other line of a text from the lines between, which
            is larger for short texts.
    """

    clients: tuple[str, ...]
    splits: tuple[SplitFacts, ...]
    divergence: tuple[tuple[float, ...], ...]
    chance: float = 0.0


@dataclass(frozen=True)
class _Read:
    """What is kept of one split while the others are read."""

    parts: int
    characters: int
    tokens: int
    digests: frozenset[bytes]
    chats: Chats | None = None


def describe(name: str, model: str, watch: Callable[[str, int, int | None], None]) -> Description:
    """Read every text of a federation: a folder, or a bundled one by its name.

    Args:
        model: whose tokenizer counts.

    Raises:
        BadInput: there is no such federation or model, or a text is missing.
    """
    clients = client_names(name)
    read: dict[tuple[int, str], _Read] = {}
    words: list[Counter[str]] = []
    halves: list[float] = []
    for number, client in enumerate(clients):
        watch("reading", number, len(clients))
        kind = ""
        for split in SPLITS:
            if holds_chats(name, client, split):
                text, read[number, split] = _read_chats(
                    Source(name, client, split, model, "answers")
                )
            else:
                text = read_split(name, client, split)
                kind = kind or ("code" if "\n\n" in text.strip() else "text")
                read[number, split] = _read_text(text, kind, model)
            if split == "train" and number < COMPARED:
                lines = [line for line in text.split("\n") if line.strip()]
                one, two = (_words("\n".join(lines[begin::2])) for begin in (0, 1))
                words.append(one + two)
                halves.append(divergence(one, two))
    watch("comparing", 0, None)
    owners = _owners(read)
    facts = [_facts(clients[number], number, split, read, owners) for number, split in read]
    matrix = tuple(tuple(divergence(one, two) for two in words) for one in words)
    return Description(clients, tuple(facts), matrix, sum(halves) / len(halves))


def _words(text: str) -> Counter[str]:
    return Counter(word[0].lower() for word in WORD.finditer(text))


def _read_text(text: str, kind: str, model: str) -> _Read:
    parts = paragraphs(text, kind)
    tokens = len(encode(load_tokenizer(model), text))
    return _Read(len(parts), len(text), tokens, frozenset(map(_digest, parts)))


def _read_chats(source: Source) -> tuple[str, _Read]:
    """What is said in a split, and what is kept of it."""
    chats = [chat for _, chat in chats_of(source.data, source.client, source.split)]
    texts = ["\n".join(turn.content for turn in chat) for chat in chats]
    tokens = answers = longest = silent = 0
    for example in encoded(source):
        if example is None:
            silent += 1
            continue
        tokens += len(example.tokens)
        answers += int(example.answers.sum())
        longest = max(longest, len(example.tokens))
    return "\n".join(texts), _Read(
        len(chats),
        sum(map(len, texts)),
        tokens,
        frozenset(_digest(line_of(chat)) for chat in chats),
        Chats(answers, longest, silent),
    )


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
    counted = this.parts, this.characters, this.tokens
    return SplitFacts(client, split, *counted, own, others, this.chats)


def _digest(part: str) -> bytes:
    return hashlib.blake2b(part.encode(), digest_size=12).digest()
