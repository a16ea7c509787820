"""Tokens of long texts, kept on disk: the next run on the same text does not make them again."""

import hashlib
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.cache import cache_folder
from comigs.errors import BadInput
from comigs.store.whole import write_whole

FORM = 1  # higher whenever the same text gives other tokens than before
LONG = 1 << 20  # characters of a text whose tokens are kept: a second's work
DIGEST = hashlib.sha256().digest_size


def kept_tokens(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    settings: str,
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """What `make` returns, or returned in an earlier process for the same text and tokenizer.

    It is kept in ~/.cache/comigs/tokens, or where XDG_CACHE_HOME says, under a name that follows
    from all that decides it; a damaged file is made anew, and any of them can be deleted.

    Args:
        settings: what else decides the result.
        make: all of it whole numbers or bools.
    """
    if len(text) < LONG or not tokenizer.is_fast:
        return make()
    try:
        path = cache_folder() / "tokens" / _name(tokenizer, text, settings)
    except RuntimeError as error:  # no home
        _tell_once(str(error))
        return make()
    if (found := _read(path)) is not None:
        return found
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = save({name: _narrow(tensor) for name, tensor in made.items()})
        write_whole(path, hashlib.sha256(data).digest() + data)
    except OSError as error:  # a full disk, a folder that is read-only; the file is one of many
        _tell_once(error.strerror or str(error))
    except BadInput as error:
        _tell_once(str(error))
    return made


def _name(tokenizer: PreTrainedTokenizerBase, text: str, settings: str) -> str:
    versions = [FORM, tokenizers.__version__, transformers.__version__]
    digest = hashlib.sha256(json.dumps([versions, _identity(tokenizer), settings]).encode())
    digest.update(text.encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=4)
def _identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that the tokenizer is, as a digest."""
    parts = [
        type(tokenizer).__name__,
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
    ]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _narrow(tensor: Tensor) -> Tensor:
    """Half the bytes, where the numbers allow it."""
    if tensor.dtype != torch.int64 or (len(tensor) and tensor.abs().max() >= 2**31):
        return tensor
    return tensor.int()


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        whole = path.read_bytes()
        if hashlib.sha256(whole[DIGEST:]).digest() != whole[:DIGEST]:
            return None
        tensors = load(whole[DIGEST:])
    except (OSError, SafetensorError):
        return None
    wide = (torch.int32, torch.int64)
    return {name: each.long() if each.dtype in wide else each for name, each in tensors.items()}


@lru_cache
def _tell_once(reason: str) -> None:
    logging.getLogger("comigs").warning("tokens of long texts cannot be kept (%s)", reason)
