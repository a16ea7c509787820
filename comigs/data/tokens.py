"""The token streams that one client trains, validates and tests on.

Where the base's tokenizer opens every text with a token of its own (BOS; see `opening`), a stream
begins with its mark, -1 - BOS, and every window of the stream begins with BOS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from comigs.backbone.base import load_settings, load_tokenizer
from comigs.config.settings import RunConfig
from comigs.data.corpus import read_split, roster
from comigs.data.encoding import encode, opening
from comigs.errors import BadInput


@dataclass(frozen=True)
class ClientData:
    """Token ids of one client, each a 1-D int64 tensor."""

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
    """Return the streams of client number `client`.

    With `data.target: mixture` validation and test text is an equal share of everybody's, as long
    in all as the shortest client's own.

    Raises:
        BadInput: when a split is missing or shorter than one sequence, or that is too long.
    """
    check_length(config)
    name = roster(config)[client]
    train = stream(config, client, "train")
    if config.data.target == "mixture":
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
    """Return the tokens of one split of one client, cut to `data.<split>_tokens`."""
    limit = getattr(config.data, f"{split}_tokens")
    limit = limit[client] if isinstance(limit, list) else limit
    source = (config.data.name, split, config.model.name)
    return _cut(source, roster(config)[client], limit, config.data.seq_len)


def _mixture(config: RunConfig, split: str) -> Tensor:
    names = roster(config)
    limits = getattr(config.data, f"{split}_tokens")
    limits = tuple(limits) if isinstance(limits, list) else (limits,) * len(names)
    source = (config.data.name, split, config.model.name)
    return _mixed(source, names, limits, config.data.seq_len)


@lru_cache(maxsize=4)
def _mixed(
    source: tuple[str, str, str],
    names: tuple[str, ...],
    limits: tuple[int | None, ...],
    seq_len: int,
) -> Tensor:
    parts = [_cut(source, n, limit, seq_len) for n, limit in zip(names, limits, strict=True)]
    share = min(len(part) for part in parts) // len(parts)
    return _joined([part[:share] for part in parts])


def _joined(streams: list[Tensor]) -> Tensor:
    """One stream of all; the mark of the first is that of the whole."""
    first, *rest = streams
    return torch.cat([first, *(tokens[int(tokens[0] < 0) :] for tokens in rest)])


def _cut(source: tuple[str, str, str], name: str, limit: int | None, seq_len: int) -> Tensor:
    """A stream of at least one sequence. `source` is (federation, split, model)."""
    data, split, model = source
    tokens = _encoded(data, name, split, model)[:limit]
    if len(tokens) <= seq_len:
        raise BadInput(
            f"client {name!r} has {len(tokens)} tokens in its {split} split; one sequence needs "
            f"data.seq_len + 1 = {seq_len + 1}"
        )
    return tokens


@lru_cache(maxsize=128)
def _encoded(data: str, client: str, split: str, model: str) -> Tensor:
    tokenizer = load_tokenizer(model)
    tokens, begin = encode(tokenizer, read_split(data, client, split)), opening(tokenizer)
    return tokens if begin is None else torch.cat([torch.tensor([-1 - begin]), tokens])


def random_windows(tokens: Tensor, count: int, seq_len: int, rng: torch.Generator) -> Tensor:
    """Draw `count` windows of seq_len + 1 tokens at uniformly random places (count x L+1)."""
    starts = torch.randint(len(tokens) - seq_len, (count, 1), generator=rng)
    windows = tokens[starts + torch.arange(seq_len + 1)]
    return windows if tokens[0] >= 0 else _opened(windows[:, 1:], tokens)


def consecutive_windows(tokens: Tensor, count: int, seq_len: int) -> Iterator[Tensor]:
    """Cover the stream once: batches of at most `count` windows of at most seq_len + 1 tokens.

    Neighbouring windows share one token, or begin with BOS, so that every token but the first, or
    BOS, is predicted once.
    """
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
