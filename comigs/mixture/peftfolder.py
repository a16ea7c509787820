"""Adapters as PEFT writes them: the same bytes from the same adapters."""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, PeftModelForCausalLM


def save_adapters(model: PeftModel, folder: Path, names: list[str], **more: Any) -> None:
    """Write the named adapters to `folder`, one PEFT folder each.

    PEFT writes sets in the order of their hashes, which differs from process to process; here lists
    of words are sorted.

    Args:
        more: as PEFT's `save_pretrained` takes it.
    """
    PeftModelForCausalLM.save_pretrained(model, str(folder), selected_adapters=names, **more)
    for path in sorted(folder.glob("*/adapter_config.json")):
        settings = json.loads(path.read_text("utf-8"))
        text = json.dumps({k: _sorted(v) for k, v in settings.items()}, indent=2, sort_keys=True)
        path.write_text(text + "\n", "utf-8")


def _sorted(value: object) -> object:
    words = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return sorted(value) if words else value  # type: ignore[call-overload]
