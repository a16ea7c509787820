"""What is told of texts before a run: which are too short, and what of chats is left out."""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

from comigs.backbone.base import load_tokenizer
from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.data.corpus import holds_chats, read_split, roster, split_sizes
from comigs.data.encoding import encode
from comigs.data.examples import Counts, Source, encoded, left_out
from comigs.data.names import SPLITS
from comigs.data.tokens import counts, stream
from comigs.errors import BadInput

BYTES = 16  # per token: a text of so many is long enough, whatever its tokenizer
SPARE = 8  # tokens; the last ones of a piece of text are others than those of the whole


def check_texts(config: RunConfig, clients: Iterable[int]) -> None:
    """Refuse what `comigs.data.tokens.stream` would: only short texts are read, and their start.

    Of chats those are read until one can be learnt from.

    Raises:
        BadInput: a text is missing, empty or too large, or a split shorter than one sequence.
    """
    names, needed = roster(config), config.data.seq_len + 1
    for client in clients:
        chats = [split for split in SPLITS if holds_chats(config.data.name, names[client], split)]
        for split in SPLITS:
            limit = own(getattr(config.data, f"{split}_tokens"), client)
            if limit is not None and limit < needed and split not in chats:
                raise BadInput(
                    f"data.{split}_tokens is {limit} for client {names[client]!r}; one sequence "
                    f"needs data.seq_len + 1 = {needed}"
                )
        for split, size in split_sizes(config.data.name, names[client]).items():
            if split in chats:
                if not _has_an_example(config, names[client], split):
                    stream(config, client, split)
            elif size < BYTES * needed and not _starts_well(config, names[client], split):
                stream(config, client, split)


def tell_left_out(config: RunConfig, clients: Sequence[int]) -> None:
    """Say which chats of these clients are too long, or of no use: once, in one line.

    Raises:
        BadInput: as `comigs.data.examples.examples_of`.
    """
    total = sum((counts(config, client) for client in clients), Counts())
    if told := left_out(total, config.data.seq_len):
        few = len(clients) < len(roster(config))
        _warn_once(
            f"{told} (of {len(clients):,} of {len(roster(config)):,} clients)" if few else told
        )


@lru_cache
def _warn_once(text: str) -> None:
    """However many runs of a suite it holds for."""
    logging.getLogger("comigs").warning(text)


def _starts_well(config: RunConfig, name: str, split: str) -> bool:
    """Whether the first characters of a split hold the tokens of one sequence, and some more."""
    needed = config.data.seq_len + 1 + SPARE
    start = read_split(config.data.name, name, split)[: BYTES * needed]
    return len(encode(load_tokenizer(config.model.name), start)) >= needed


def _has_an_example(config: RunConfig, name: str, split: str) -> bool:
    """Whether an example fits into a sequence with an answer, and within what is kept."""
    source = Source(config.data.name, name, split, config.model.name, config.data.loss)
    limit = getattr(config.data, f"{split}_tokens")
    within = slice(1, config.data.seq_len + 1)
    found = (example for example in encoded(source) if example is not None)
    return limit is None and any(example.answers[within].any() for example in found)
