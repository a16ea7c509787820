"""One expert alone, in the forms that programs without mixtures load."""

import shutil
from pathlib import Path
from typing import Any

from comigs.backbone.base import load_tokenizer
from comigs.errors import BadInput
from comigs.export.llamacpp import convert_lora, convert_model
from comigs.export.lora import write_lora
from comigs.export.weights import stored_type, write_settings, write_weights
from comigs.federation.run import Client


def write_one(
    client: Client, model: Any, expert: str, form: str, place: Path, llama_cpp: Path | None
) -> None:
    """Write one expert to `place`; the model must not be used any more.

    Args:
        form: see `comigs.export.forms.OF_ONE`.
        llama_cpp: the folder of llama.cpp's sources, for the GGUF forms.

    Raises:
        BadInput: it cannot be had in this form.
        ComigsError: llama.cpp's converter refuses it.
    """
    if form == "lora":
        return write_lora(model, expert, place)
    if form == "merged":
        return _write_merged(client, model, expert, place)
    assert llama_cpp is not None
    parts = place / expert  # the converter takes the model's name from it
    parts.mkdir()
    if form == "gguf":
        _write_merged(client, model, expert, parts)
        dtype = str(stored_type(client)).removeprefix("torch.")
        convert_model(llama_cpp, parts, place / "model.gguf", dtype)
    else:
        write_lora(model, expert, parts, stored=True)
        write_settings(model.get_base_model(), parts)
        convert_lora(llama_cpp, parts, parts, place / "lora.gguf")
    shutil.rmtree(parts)


def chosen_expert(model: Any, form: str, expert: str | None, generalist_only: bool) -> str:
    """The one that is meant.

    Raises:
        BadInput: none or several are, or it is not there.
    """
    there = list(model.peft_config)
    names = generalists(model) if generalist_only else [expert] if expert else there
    if names[0] not in there:
        raise BadInput(f"--expert is {expert!r}; this client has {', '.join(there)}")
    if len(names) > 1:
        raise BadInput(
            f"--as {form} is of one expert, and this is a mixture of {len(names)}: --as "
            f"transformers has all of it, --expert takes one alone ({', '.join(names)})"
        )
    return names[0]


def generalists(model: Any) -> list[str]:
    """Raises: BadInput, there are none."""
    names = [name for name in model.peft_config if name.startswith("generalist_")]
    if not names:
        raise BadInput("this method keeps no generalist experts")
    return names


def _write_merged(client: Client, model: Any, expert: str, place: Path) -> None:
    load_tokenizer(client.config.model.name).save_pretrained(place)
    dense, dtype = model.merge_and_unload(adapter_names=[expert]), stored_type(client)
    settings = {"dtype": str(dtype).removeprefix("torch.")}
    if length := getattr(dense.config, "n_positions", None):
        settings["n_ctx"] = length  # GPT-2's old name for it, which llama.cpp's converter goes by
    write_settings(dense, place, **settings)
    write_weights(dense, place, dtype, {})
