"""The frozen base model: loaded once per process, shared by every client's model."""

import logging
from functools import lru_cache, partial
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from comigs.backbone.cache import shared_source
from comigs.backbone.families import decoder_layers, family_of, text_model
from comigs.backbone.faster import prefer_fast_activation, prefer_fast_attention
from comigs.backbone.names import model_source
from comigs.backbone.quantised import load_quantised
from comigs.backbone.stored import PER_BYTE, settle, store, unlike
from comigs.backbone.weights import check_settings, load_whole
from comigs.config.model import NATIVE
from comigs.errors import BadInput, one_line
from comigs.hardware import device

# What fills a row up stands behind all that is read: it needs no attention mask.
logging.getLogger("transformers.modeling_utils").addFilter(
    lambda record: "input_ids may be padded" not in str(record.msg)
)

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")  # one of them


@lru_cache(maxsize=4)
def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        BadInput: when it cannot be loaded.
    """
    source = model_source(name)
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in _TOKENIZERS):
        raise BadInput(
            f"model.name {name!r}: the folder holds no tokenizer; put the model's tokenizer.json "
            "and tokenizer_config.json there"
        )
    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # of whatever kind: it is about what is in the folder
        raise _unloadable(name, "tokenizer", error) from None


def load_settings(name: str) -> PreTrainedConfig:
    """The configuration of the causal LM at `name`; of a multimodal model the text model's.

    Raises:
        BadInput: when it cannot be loaded or used, or its family is unknown.
    """
    source = model_source(name)
    try:
        whole = AutoConfig.from_pretrained(source)
        settings = text_model(whole)
        family_of(settings.model_type)
        for each in (whole, settings):
            check_settings(name, each)
    except BadInput:
        raise
    except Exception as error:  # of whatever kind: it is about what is in the folder
        raise _unloadable(name, "model", error) from None
    return settings


@lru_cache(maxsize=8)
def hidden_size(name: str) -> int:
    """The width of a model's hidden states; raises as `load_settings`."""
    return int(load_settings(name).hidden_size)


@lru_cache(maxsize=8)
def takes_several(name: str) -> bool:
    """Whether a row of tokens may hold several examples; raises as `load_settings`."""
    return family_of(load_settings(name).model_type).packs


def load_base(name: str, dtype: str, compute: str = "auto") -> PreTrainedModel:
    """Load a causal LM, frozen and in evaluation mode, on the device of `comigs.hardware`.

    Args:
        name: a bundled model, a local folder or a hub id.
        dtype: how it is stored: float32, bfloat16, int8 or nf4. Weights are mapped from a file
            that stores them so, for processes to share; see `comigs.backbone.cache`.
        compute: the type of its products; auto: as it is stored, or bfloat16.

    Raises:
        BadInput: when it cannot be loaded, its family is unknown, or its vocabulary is smaller
            than its tokenizer's.
    """
    return base_on(device(), name, dtype, NATIVE[dtype] if compute == "auto" else compute)


@lru_cache(maxsize=4)
def base_on(place: torch.device, name: str, dtype: str, compute: str) -> PreTrainedModel:
    """`load_base` with all of it decided; kept for the process."""
    source = model_source(name)
    load_settings(name)
    disable_progress_bar()
    try:
        if dtype in PER_BYTE:
            model = load_quantised(source, name, dtype, compute)
        else:
            load = partial(load_whole, name=name, dtype=getattr(torch, dtype))
            model = load(shared_source(source, dtype, load))
            if unlike(dtype, compute, place.type):
                store(model, dtype, compute)
                settle(model, compute)
    except BadInput:
        raise
    except Exception as error:  # of whatever kind: it is about what is in the folder
        raise _unloadable(name, "model", error) from None
    model.name_or_path = model.config.name_or_path = source  # an adapter's base, not a copy of it
    words, rows = len(load_tokenizer(name)), model.get_input_embeddings().num_embeddings
    if words > rows:
        raise BadInput(
            f"model.name {name!r}: its tokenizer knows {words} tokens, the model only {rows}; "
            "give a folder whose tokenizer and model belong together"
        )
    model.requires_grad_(False).eval().to(place)
    prefer_fast_attention(model, compute)
    family = family_of(model.config.model_type)
    prefer_fast_activation(decoder_layers(model, family), family)
    return model


def _unloadable(name: str, what: str, error: Exception) -> BadInput:
    logging.getLogger("comigs").debug("loading %s of %s", what, name, exc_info=error)
    reason = one_line(error)[:300]
    offline = "" if Path(model_source(name)).is_dir() else "; without a network: HF_HUB_OFFLINE=1"
    return BadInput(f"model.name {name!r}: no {what} could be loaded ({reason}){offline}")
