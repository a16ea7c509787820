"""A base whose decoder is int8 or nf4: quantised once on each machine, mapped by every process."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from comigs.backbone.cache import kept_copy
from comigs.backbone.families import text_model
from comigs.backbone.stored import settle, store
from comigs.backbone.weights import laid_out, load_whole

FILE = "quantised.safetensors"


def load_quantised(source: str, name: str, dtype: str, compute: str) -> PreTrainedModel:
    """Load the causal LM at `source` with the linears of its decoder in int8 or nf4.

    Args:
        source: a folder, or a hub id.
        name: what errors call it.
        dtype: "int8" or "nf4".
        compute: the type of all products.

    Raises:
        BadInput: as `load_whole`, or the library for it is not installed.
    """

    load = partial(load_whole, name=name, dtype="auto")

    def quantise() -> PreTrainedModel:
        model = load(source)
        store(model, dtype, compute)
        return model

    folder = kept_copy(source, dtype, load, lambda to: save_file(_tensors(quantise()), to / FILE))
    model = quantise() if folder is None else _mapped(source, folder, dtype, compute)
    settle(model, compute)
    return model


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every tensor of the model once: of tied ones, the first."""
    seen: set[int] = set()
    found = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            found[name] = tensor.contiguous()
            seen.add(tensor.data_ptr())
    return found


def _mapped(source: str, folder: Path, dtype: str, compute: str) -> PreTrainedModel:
    settings = text_model(AutoConfig.from_pretrained(source))
    with laid_out(), init_empty_weights(include_buffers=False):
        model = cast(PreTrainedModel, AutoModelForCausalLM.from_config(settings))
    store(model, dtype, compute)
    tensors = load_file(folder / FILE)
    model.load_state_dict(tensors, strict=False, assign=True)
    if settings.get_text_config().tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    if left := [name for name, p in model.named_parameters() if p.is_meta]:
        raise ValueError(f"{folder} lacks {left[0]}")
    with suppress(OSError):  # there is none: the one made of the model's config stays
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model
