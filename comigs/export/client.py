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
from comigs.export.forms import check_form
from comigs.export.standalone import write_standalone
from comigs.export.weights import stored_type, write_settings, write_weights
from comigs.mixture.adapters import save_experts
from comigs.store.whole import shown_to_all
from comigs.use.generate import open_client


def export_client(
    folder: Path, client: int, to: Path, form: str = "peft", generalist_only: bool = False
) -> None:
    """Write a client's model to `to`, with a model card: all of it, or nothing.

    Args:
        form: peft, a PEFT folder per expert, and the routers; transformers, the whole mixture with
            its base; merged, one expert in the base's weights.
        generalist_only: leave out what is the client's own: specialists and routers.

    Raises:
        BadInput: when `to` exists, or the client's model cannot be had in this form.
    """
    check_form(form, generalist_only)
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
        if form == "peft":
            names = _write_experts(model, place, generalist_only)
        else:
            names = list(model.peft_config)
            load_tokenizer(own.config.model.name).save_pretrained(place)
            if form == "merged":
                names = [_one_expert(model, generalist_only)]
                dense, dtype = model.merge_and_unload(adapter_names=names), stored_type(own)
                write_settings(dense, place, dtype=str(dtype).removeprefix("torch."))
                write_weights(dense, place, dtype, {})
            else:
                write_standalone(own, model, place)
        write_cards(folder, own, form, names, rank, place)
        shown_to_all(place)


def _write_experts(model: Any, place: Path, generalist_only: bool) -> list[str]:
    """The names of those that were written."""
    if not generalist_only:
        save_experts(model, place)
        return list(model.peft_config)
    names = _generalists(model)
    model.save_pretrained(place, selected_adapters=names)
    return names


def _one_expert(model: Any, generalist_only: bool) -> str:
    names = _generalists(model) if generalist_only else list(model.peft_config)
    if len(names) > 1:
        one_shared = sum(name.startswith("generalist_") for name in names) == 1
        hint = ", --generalist-only merges the shared expert alone" if one_shared else ""
        raise BadInput(
            f"--as merged is of one expert, and this is a mixture of {len(names)}: "
            f"--as transformers has all of it{hint}"
        )
    return names[0]


def _generalists(model: Any) -> list[str]:
    names = [name for name in model.peft_config if name.startswith("generalist_")]
    if not names:
        raise BadInput("this method keeps no generalist experts")
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
