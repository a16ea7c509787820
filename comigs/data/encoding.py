"""Token ids of a long text in little memory.

A tokenizer takes some 200 bytes for each byte of text that it is given at once, so the text goes in
piece by piece, with the same tokens. Pieces end where a line ends and tokens do not cross.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.base import load_tokenizer
from comigs.cores import cores

PIECE = 1 << 16  # characters; a piece is a little longer
MOST = 8  # pieces at once
AROUND = 1 << 10  # characters on both sides of a cut that may decide its tokens
TRIES = 8  # ends of lines to look at; a tokenizer that marks where its text begins has no good one


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    """Return the token ids of `text`, without special tokens (1-D, int64).

    Several pieces at once: a fast tokenizer gives each a thread, unless TOKENIZERS_PARALLELISM is
    false.
    """
    pieces, together = _pieces(tokenizer, text), min(cores(), MOST)
    parts: list[Tensor] = []
    while group := list(islice(pieces, together)):
        if len(group) == 1:
            parts.append(torch.tensor(_ids(tokenizer, group[0])))
        else:
            found = tokenizer(group, add_special_tokens=False, verbose=False)["input_ids"]
            parts += map(torch.tensor, found)
    return torch.cat(parts).long()


def amount_of(model: str, text: str) -> int:
    """How many tokens a text is to a model, with the one that opens it."""
    tokenizer = load_tokenizer(model)
    return len(encode(tokenizer, text)) + (opening(tokenizer) is not None)


def opening(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the tokenizer itself puts before every text (BOS), or None.

    A model whose tokenizer does so was trained with it: here it opens every sequence that is
    trained on, tested on or continued. What a tokenizer puts behind a text (EOS) is never used.
    """
    plain, whole = _ids(tokenizer, "a"), tokenizer("a", verbose=False)["input_ids"]
    begins = bool(plain) and len(whole) > len(plain) and whole[1 : 1 + len(plain)] == plain
    return whole[0] if begins else None


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[str]:
    begin = 0
    while (end := _cut(tokenizer, text, begin)) is not None:
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _cut(tokenizer: PreTrainedTokenizerBase, text: str, begin: int) -> int | None:
    """Where to end the piece from `begin`: between lines that give the same tokens apart."""
    place = begin + PIECE
    for _ in range(TRIES):
        end = text.find("\n", place) + 1
        if not 0 < end < len(text):
            return None
        first = text.rfind("\n", begin, max(begin, end - AROUND)) + 1 or begin
        before = text[first:end]
        after = text[end : text.find("\n", end + AROUND) + 1 or len(text)]
        if _part(tokenizer, before, after):
            return end
        place = end
    return None


def _part(tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> bool:
    """Whether some lines have the same tokens apart as together; a run of spaces stays whole."""
    line = before[before.rfind("\n", 0, -1) + 1 :]
    if line.isspace() or after[0].isspace():
        return False
    together = _ids(tokenizer, before + after)
    return together == _ids(tokenizer, before) + _ids(tokenizer, after)
