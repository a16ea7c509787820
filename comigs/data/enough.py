"""What is told of texts before a run: which are too short, and what of chats is left out."""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.data.corpus import federation_folder, on_disk
from comigs.data.examples import Counts, left_out
from comigs.data.names import SPLITS
from comigs.data.roster import BYTES, has_an_example, roster, starts_well, told
from comigs.data.tokens import counts, stream
from comigs.errors import BadInput


def check_texts(config: RunConfig, clients: Iterable[int]) -> None:
    """Refuse what `comigs.data.tokens.stream` would: only short texts are read, and their start.

    Of chats those are read until one can be learnt from.

    Raises:
        BadInput: a text is missing, empty or too large, or a split shorter than one sequence.
    """
    names, needed = roster(config), config.data.seq_len + 1
    root = federation_folder(config.data.name)
    limits = {split: getattr(config.data, f"{split}_tokens") for split in SPLITS}
    for client in clients:
        name = names[client]
        for split, (size, chats) in on_disk(root, name).items():
            limit = own(limits[split], client)
            if limit is not None and limit < needed and not chats:
                raise BadInput(
                    f"data.{split}_tokens is {limit} for client {name!r}; one sequence "
                    f"needs data.seq_len + 1 = {needed}"
                )
            where = config.data.name, name, split, config.model.name, config.data.seq_len
            if chats:
                if limit is not None or not has_an_example(*where, config.data.loss):
                    stream(config, client, split)
            elif size < BYTES * needed and not starts_well(*where):
                stream(config, client, split)


def tell_left_out(config: RunConfig, clients: Sequence[int]) -> None:
    """Say which chats of these clients are too long, or of no use: once, in one line.

    Raises:
        BadInput: as `comigs.data.examples.examples_of`.
    """
    total = sum((counts(config, client) for client in clients), Counts())
    if lost := left_out(total, config.data.seq_len):
        few = len(clients) < len(roster(config))
        _warn_once(
            f"{lost} (of {len(clients):,} of {len(roster(config)):,} clients)" if few else lost
        )


def tell_skipped(config: RunConfig) -> None:
    """Say whom `data.skip_small` leaves out: once, in one line."""
    if line := told(config):
        _warn_once(line)


@lru_cache
def _warn_once(text: str) -> None:
    """However many runs of a suite it holds for."""
    logging.getLogger("comigs").warning(text)
