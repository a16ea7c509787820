"""The examples of a client that holds chats: as tokens, as long as a sequence may be."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from comigs.backbone.base import load_tokenizer
from comigs.backbone.kepttokens import LONG, kept_tokens
from comigs.data.chats import ANSWERS, Chat, Unfit, read_line
from comigs.data.corpus import of_texts, place_of, read_split
from comigs.data.template import Encoded, encode_chats
from comigs.data.windows import marked
from comigs.errors import BadInput, TooShort

AT_ONCE = 256  # chats that are encoded together


class Source(NamedTuple):
    """Whose examples, and how they are read: `split` of `client` of the federation `data`."""

    data: str
    client: str
    split: str
    model: str
    loss: str


@dataclass(frozen=True)
class Counts:
    """What became of examples.

    Attributes:
        read: how many there are.
        cut: longer than a sequence: their ends are cut off.
        lost: longer than a sequence, with no answer in what would be left: dropped.
        silent: without any answer: dropped.
        longest: tokens of the longest.
    """

    read: int = 0
    cut: int = 0
    lost: int = 0
    silent: int = 0
    longest: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.read + other.read,
            self.cut + other.cut,
            self.lost + other.lost,
            self.silent + other.silent,
            max(self.longest, other.longest),
        )


@dataclass(frozen=True)
class Examples:
    """Of one split of one client.

    Attributes:
        kept: each as `comigs.data.windows.marked` makes it, and no longer than a sequence.
    """

    kept: tuple[Tensor, ...]
    counts: Counts


def chats_of(data: str, client: str, split: str) -> Iterator[tuple[int, Chat]]:
    """The chats of a split, each with the number of its line.

    Raises:
        BadInput: there is no such file, or a line is damaged.
    """
    for number, line in enumerate(read_split(data, client, split).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, read_line(line)
        except Unfit as reason:
            raise _damaged(data, client, split, number, reason) from None


def encoded(source: Source) -> Iterator[Encoded | None]:
    """The examples of a split as tokens, whole; None for one without any answer.

    Raises:
        BadInput: as `chats_of`; or the model's template does not take a chat.
    """
    data, client, split, model, loss = source
    tokenizer, everything = load_tokenizer(model), loss == "all"
    chats = chats_of(data, client, split)
    while group := list(islice(chats, AT_ONCE)):
        taken = [each for each in group if _is_of_use(each[1], everything)]
        yield from [None] * (len(group) - len(taken))
        try:
            yield from encode_chats(tokenizer, [chat for _, chat in taken], everything)
        except Unfit as reason:
            raise _damaged(data, client, split, taken[reason.place][0], reason) from None


def _kept(source: Source) -> Iterator[Encoded | None]:
    """What `encoded` gives; of long texts it is kept on disk."""
    tokenizer, text = load_tokenizer(source.model), read_split(*source[:3])
    if len(text) < LONG or "strftime" in str(tokenizer.chat_template):  # says what day it is
        yield from encoded(source)
        return
    packed = kept_tokens(tokenizer, text, f"chats {source.loss}", lambda: _packed(source))
    lengths = packed["lengths"].tolist()
    places = [max(0, length) for length in lengths]
    both = zip(packed["tokens"].split(places), packed["answers"].split(places), strict=True)
    for length, (tokens, answers) in zip(lengths, both, strict=True):
        yield Encoded(tokens, answers) if length >= 0 else None


def _packed(source: Source) -> dict[str, Tensor]:
    """All examples in three tensors; one without an answer has the length -1."""
    found = list(encoded(source))
    there = [example for example in found if example is not None]
    lengths = [-1 if example is None else len(example.tokens) for example in found]
    none = Encoded(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
    tokens, answers = (torch.cat(parts) for parts in zip(none, *there, strict=True))
    return {"tokens": tokens, "answers": answers, "lengths": torch.tensor(lengths).long()}


@of_texts
@lru_cache(maxsize=128)
def examples_of(source: Source, seq_len: int) -> Examples:
    """The examples that can be learnt from, in sequences of `seq_len` tokens.

    Raises:
        BadInput: as `encoded`; or none can.
    """
    kept: list[Tensor] = []
    total = Counts()
    for example in _kept(source):
        if example is None or not example.answers[1:].any():
            total += Counts(read=1, silent=1)
            continue
        whole = len(example.tokens)
        tokens, answers = (each[: seq_len + 1] for each in example)
        if answers[1:].any():
            total += Counts(read=1, cut=int(len(tokens) < whole), longest=whole)
            kept.append(marked(tokens, answers))
        else:
            total += Counts(read=1, lost=1, longest=whole)
    if not kept:
        told = left_out(total, seq_len) or "the file is empty"
        raise TooShort(
            f"client {source.client!r} has nothing to learn from in its {source.split} "
            f"split: {told}"
        )
    return Examples(tuple(kept), total)


def left_out(counts: Counts, seq_len: int) -> str:
    """In one line what is cut off or dropped; "" for nothing."""
    parts = []
    if counts.cut:
        parts.append(f"{counts.cut:,} lose their end")
    if counts.lost:
        parts.append(f"{counts.lost:,} lose all of their answers and are dropped")
    if parts:
        parts.append(f"data.seq_len={counts.longest - 1} holds all")
    if counts.silent:
        parts.append(f"{counts.silent:,} have no answer and are dropped")
    long = f"{counts.cut + counts.lost:,} are longer than data.seq_len {seq_len}: "
    long = long if counts.cut + counts.lost else ""
    return f"of {counts.read:,} examples, {long}{'; '.join(parts)}" if parts else ""


def _is_of_use(chat: Chat, everything: bool) -> bool:
    return any(everything or turn.role == ANSWERS for turn in chat)


def _damaged(data: str, client: str, split: str, number: int, reason: Unfit) -> BadInput:
    path, before = place_of(data, client, split)
    ways = "mend it, or take it out"
    if path.parent.name != client:
        ways += ", or let comigs data prepare make chats of it all"
    return BadInput(f"{path}, line {before + number}: {reason}; {ways}")
