"""Whether the clients' texts are long enough, told before a run without encoding all of them."""

from collections.abc import Iterable

from comigs.backbone.base import load_tokenizer
from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.data.corpus import SPLITS, read_split, roster, split_sizes
from comigs.data.encoding import encode
from comigs.data.tokens import stream
from comigs.errors import BadInput

BYTES = 16  # per token: a text of so many is long enough, whatever its tokenizer
SPARE = 8  # tokens; the last ones of a piece of text are others than those of the whole


def check_texts(config: RunConfig, clients: Iterable[int]) -> None:
    """Refuse what `comigs.data.tokens.stream` would: only short texts are read, and their start.

    Raises:
        BadInput: a text is missing, empty or too large, or a split shorter than one sequence.
    """
    names, needed = roster(config), config.data.seq_len + 1
    for client in clients:
        for split in SPLITS:
            limit = own(getattr(config.data, f"{split}_tokens"), client)
            if limit is not None and limit < needed:
                raise BadInput(
                    f"data.{split}_tokens is {limit} for client {names[client]!r}; one sequence "
                    f"needs data.seq_len + 1 = {needed}"
                )
        for split, size in split_sizes(config.data.name, names[client]).items():
            if size < BYTES * needed and not _starts_well(config, names[client], split):
                stream(config, client, split)


def _starts_well(config: RunConfig, name: str, split: str) -> bool:
    """Whether the first characters of a split hold the tokens of one sequence, and some more."""
    needed = config.data.seq_len + 1 + SPARE
    start = read_split(config.data.name, name, split)[: BYTES * needed]
    return len(encode(load_tokenizer(config.model.name), start)) >= needed
