"""One client's model, in a folder that others load."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comigs.backbone.base import load_tokenizer
from comigs.errors import BadInput
from comigs.export.card import write_cards
from comigs.export.forms import OF_ONE, check_form
from comigs.export.one import chosen_expert, generalists, write_one
from comigs.export.standalone import write_standalone
from comigs.mixture.adapters import save_experts
from comigs.store.whole import shown_to_all
from comigs.use.generate import open_client


def export_client(
    folder: Path,
    client: int | str,
    to: Path,
    form: str = "peft",
    generalist_only: bool = False,
    expert: str | None = None,
    llama_cpp: Path | None = None,
) -> None:
    """Write a client's model to `to`, with a model card: all of it, or nothing.

    Args:
        form: peft, a PEFT folder per expert, and the routers; transformers, the whole mixture with
            its base; of one expert: merged, in the base's weights; gguf, the same for llama.cpp;
            lora, a plain PEFT adapter; lora-gguf, the same for llama.cpp.
        generalist_only: leave out what is the client's own: specialists and routers.
        expert: whose weights to take, where the form has those of one.
        llama_cpp: the folder of llama.cpp's sources, whose converters write GGUF.

    Raises:
        BadInput: when `to` exists, or the client's model cannot be had in this form.
        ComigsError: llama.cpp's converter refuses it.
    """
    check_form(form, generalist_only, expert, llama_cpp)
    if to.exists() or to.is_symlink():
        raise BadInput(f"{to} exists already; give a new folder")
    own, model = open_client(folder, client)
    alone = generalist_only or len(model.peft_config) == 1
    if own.experts.native and not (form == "merged" and alone):
        raise BadInput(
            f"--as {form} cannot hold this mixture: with experts.native all native experts share a "
            "LoRA, which no other library has; --as merged --generalist-only merges the shared one"
        )
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = own.config.model.name
    rank = model.comigs_settings["experts"]["rank"]
    with _made_whole(to) as place:
        if form in OF_ONE:
            names = [chosen_expert(model, form, expert, generalist_only)]
            write_one(own, model, names[0], form, place, llama_cpp)
        elif form == "transformers":
            names = list(model.peft_config)
            load_tokenizer(own.config.model.name).save_pretrained(place)
            write_standalone(own, model, place)
        else:
            names = _write_experts(model, place, generalist_only)
        write_cards(folder, own, form, names, rank, place)
        shown_to_all(place)


def _write_experts(model: Any, place: Path, generalist_only: bool) -> list[str]:
    """The names of those that were written."""
    if not generalist_only:
        save_experts(model, place)
        return list(model.peft_config)
    names = generalists(model)
    model.save_pretrained(place, selected_adapters=names)
    return names


@contextmanager
def _made_whole(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes it at the end, or is gone."""
    to.parent.mkdir(parents=True, exist_ok=True)
    place = to.with_name(f".{to.name[:200]}.{secrets.token_hex(4)}.tmp")
    place.mkdir()
    try:
        yield place
        place.rename(to)
    finally:
        shutil.rmtree(place, ignore_errors=True)
