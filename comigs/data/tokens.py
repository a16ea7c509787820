"""What one client trains, validates and tests on: a stream of tokens, or rows of whole examples.

Text is one stream (1-D), and a window of it may begin anywhere. Chats are rows (n x L+1) of whole
examples with marks (`comigs.data.windows`), each row a window.

Where the base's tokenizer opens every text with a token of its own (BOS; see `opening`), a stream
begins with its mark, -1 - BOS, and every window of the stream begins with BOS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from comigs.backbone.base import load_settings, load_tokenizer, takes_several
from comigs.backbone.kepttokens import kept_tokens
from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.data.corpus import holds_chats, of_texts, read_split
from comigs.data.encoding import encode, opening
from comigs.data.examples import Counts, Source, examples_of
from comigs.data.names import SPLITS
from comigs.data.roster import roster
from comigs.data.windows import packed, predicted
from comigs.errors import BadInput, TooShort


@dataclass(frozen=True)
class ClientData:
    """Token ids of one client: streams (1-D int64) or rows of chats (n x L+1)."""

    name: str
    train: Tensor
    valid: Tensor
    tests: dict[str, Tensor]  # by the name of the client whose kind of text it tests


def check_length(config: RunConfig) -> None:
    """Refuse sequences that are longer than what the base has positions for.

    Raises:
        BadInput: naming both; or the base's configuration cannot be read.
    """
    name, length = config.model.name, config.data.seq_len
    positions = _positions(name)
    if positions is not None and length > positions:
        raise BadInput(
            f"data.seq_len is {length}; model {name!r} has {positions} positions: set "
            f"data.seq_len={positions} or less"
        )


@lru_cache(maxsize=8)
def _positions(model: str) -> int | None:
    positions = getattr(load_settings(model), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


def client_data(config: RunConfig, client: int) -> ClientData:
    """Return what client number `client` works on.

    With `data.target: mixture` validation and test text is an equal share of everybody's, as long
    in all as the shortest client's own; of chats, as many examples.

    Raises:
        BadInput: when a split is missing or shorter than one sequence, or that is too long.
    """
    check_length(config)
    name = roster(config)[client]
    train = stream(config, client, "train")
    if own(config.data.target, client) == "mixture":
        return ClientData(name, train, _mixture(config, "valid"), {name: _mixture(config, "test")})
    valid, test = (stream(config, client, split) for split in ("valid", "test"))
    return ClientData(name, train, valid, {name: test})


def pooled_data(config: RunConfig) -> ClientData:
    """Everybody's text as one client, tested on each client's own test stream."""
    everyone = [client_data(config, i) for i in range(len(roster(config)))]
    tests = {name: test for data in everyone for name, test in data.tests.items()}
    train, valid = (_joined([getattr(d, key) for d in everyone]) for key in ("train", "valid"))
    return ClientData("all", train, valid, tests)


def stream(config: RunConfig, client: int, split: str) -> Tensor:
    """Return one split of one client, cut to `data.<split>_tokens`: a stream, or rows of chats."""
    limit = own(getattr(config.data, f"{split}_tokens"), client)
    return _cut(_source(config, split), roster(config)[client], limit, config.data.seq_len)


def counts(config: RunConfig, client: int) -> Counts:
    """What becomes of all examples of one client; of plain text nothing is counted."""
    name, total = roster(config)[client], Counts()
    for split in SPLITS:
        source = _source(config, split)
        if holds_chats(source.data, name, split):
            found = examples_of(source._replace(client=name), config.data.seq_len)
            total += found.counts
    return total


def _source(config: RunConfig, split: str) -> Source:
    """A split of nobody yet."""
    return Source(config.data.name, "", split, config.model.name, config.data.loss)


def _mixture(config: RunConfig, split: str) -> Tensor:
    names = roster(config)
    limits = getattr(config.data, f"{split}_tokens")
    limits = tuple(own(limits, client) for client in range(len(names)))
    return _mixed(_source(config, split), names, limits, config.data.seq_len)


@of_texts
@lru_cache(maxsize=4)
def _mixed(
    source: Source, names: tuple[str, ...], limits: tuple[int | None, ...], seq_len: int
) -> Tensor:
    both = list(zip(names, limits, strict=True))
    chats = [holds_chats(source.data, name, source.split) for name in names]
    if all(chats):
        examples = [_kept(source._replace(client=n), limit, seq_len) for n, limit in both]
        share = max(1, min(map(len, examples)) // len(examples))
        chosen = [each for own in examples for each in own[:share]]
        return packed(chosen, seq_len + 1, takes_several(source.model))
    parts = [_cut(source, name, limit, seq_len) for name, limit in both]
    share = min(len(part) for part in parts) // len(parts)
    return _joined([part[:share] for part in parts])


def _joined(streams: list[Tensor]) -> Tensor:
    """One stream of all, where the mark of the first is that of the whole; or all rows.

    Raises:
        BadInput: some are streams, some rows.
    """
    first, *rest = streams
    if len({tokens.ndim for tokens in streams}) > 1:
        raise BadInput(
            "some clients hold plain text, some chats; to mix them, give all of one kind"
        )
    if first.ndim == 2:
        return torch.cat(streams)
    return torch.cat([first, *(tokens[int(tokens[0] < 0) :] for tokens in rest)])


def _cut(source: Source, name: str, limit: int | None, seq_len: int) -> Tensor:
    """A stream of at least one sequence, or rows of chats."""
    if holds_chats(source.data, name, source.split):
        return _rows(source._replace(client=name), limit, seq_len)
    whole = _encoded(source.data, name, source.split, source.model)
    tokens = whole[:limit]
    if len(tokens) <= seq_len:
        kind = TooShort if len(whole) <= seq_len else BadInput
        raise kind(
            f"client {name!r} has {len(tokens)} tokens in its {source.split} split; one sequence "
            f"needs data.seq_len + 1 = {seq_len + 1}"
        )
    return tokens


@of_texts
@lru_cache(maxsize=128)
def _rows(source: Source, limit: int | None, seq_len: int) -> Tensor:
    return packed(_kept(source, limit, seq_len), seq_len + 1, takes_several(source.model))


def _kept(source: Source, limit: int | None, seq_len: int) -> list[Tensor]:
    """The first examples, which have `limit` tokens together at most."""
    examples = examples_of(source, seq_len).kept
    ends = accumulate(len(example) for example in examples)
    kept = [e for e, end in zip(examples, ends, strict=True) if limit is None or end <= limit]
    if not kept:
        raise BadInput(
            f"data.{source.split}_tokens is {limit}; the first example of client "
            f"{source.client!r} has {len(examples[0])}"
        )
    return kept


@of_texts
@lru_cache(maxsize=128)
def _encoded(data: str, client: str, split: str, model: str) -> Tensor:
    tokenizer, text = load_tokenizer(model), read_split(data, client, split)
    made = kept_tokens(tokenizer, text, "text", lambda: {"tokens": encode(tokenizer, text)})
    tokens, begin = made["tokens"], opening(tokenizer)
    return tokens if begin is None else torch.cat([torch.tensor([-1 - begin]), tokens])


def predictions(tokens: Tensor) -> int:
    """How many tokens of a stream, or of rows, are predicted."""
    return len(tokens) - 1 if tokens.ndim == 1 else int(predicted(tokens))


def amount(tokens: Tensor) -> int:
    """How much a stream or rows are: the tokens of a stream; of rows those that are predicted."""
    return len(tokens) if tokens.ndim == 1 else int(predicted(tokens))


def places(tokens: Tensor) -> int:
    """How many tokens go through a model when all of them are read: of rows, the filling too."""
    return len(tokens) if tokens.ndim == 1 else tokens.numel() - len(tokens)


def random_windows(tokens: Tensor, count: int, seq_len: int, rng: torch.Generator) -> Tensor:
    """Draw `count` windows of seq_len + 1 tokens, uniformly random places or rows (count x L+1)."""
    if tokens.ndim == 2:
        return tokens[torch.randint(len(tokens), (count,), generator=rng)]
    starts = torch.randint(len(tokens) - seq_len, (count, 1), generator=rng)
    windows = tokens[starts + torch.arange(seq_len + 1)]
    return windows if tokens[0] >= 0 else _opened(windows[:, 1:], tokens)


def consecutive_windows(tokens: Tensor, count: int, seq_len: int) -> Iterator[Tensor]:
    """Cover all once: batches of at most `count` windows of at most seq_len + 1 tokens, or of rows.

    Neighbouring windows share one token, or begin with BOS, so that every token but the first, or
    BOS, is predicted once.
    """
    if tokens.ndim == 2:
        yield from tokens.split(count)
        return
    marked = bool(tokens[0] < 0)
    whole = (len(tokens) - 1) // seq_len
    if whole:
        windows = tokens[: whole * seq_len + 1].unfold(0, seq_len + 1, seq_len)
        yield from (_opened(windows[:, 1:], tokens) if marked else windows).split(count)
    rest = tokens[whole * seq_len :]
    if len(rest) > 1:
        yield _opened(rest[None, 1:], tokens) if marked else rest.unsqueeze(0)


def _opened(windows: Tensor, stream: Tensor) -> Tensor:
    """The windows, each behind the token that the stream's mark stands for."""
    return torch.cat([(-1 - stream[0]).expand(len(windows), 1), windows], 1)
