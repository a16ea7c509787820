"""The model card of what is taken away: README.md, as the hub shows it."""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from comigs.backbone.names import BUNDLED
from comigs.data.corpus import federation_folder
from comigs.errors import BadInput
from comigs.export.forms import OF_ONE
from comigs.federation.run import Client
from comigs.store.metrics import final_rows
from comigs.store.plain import MIB, read_plain
from comigs.use.final import standing
from comigs.version import __version__

ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
WHAT = {  # title, and first sentence
    "peft": ("LoRA experts", "LoRA experts in PEFT's format, one in each folder."),
    "transformers": ("mixture of experts", "A mixture of LoRA experts with its base."),
    "merged": ("merged", "A dense model: the base with one LoRA expert in its weights."),
    "gguf": ("GGUF", "A dense model for llama.cpp: the base with one LoRA expert in its weights."),
    "lora": ("LoRA", "One LoRA expert as a plain PEFT adapter, with the attention's LoRA."),
    "lora-gguf": ("LoRA, GGUF", "One LoRA expert for llama.cpp, with the attention's LoRA."),
}
LIBRARY = {"peft": "peft", "lora": "peft", "gguf": "llama.cpp", "lora-gguf": "llama.cpp"}
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that its --max-lora-rank can be
PLAIN = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER"{})"""
ONE_EXPERT = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
expert = PeftModel.from_pretrained(base, "FOLDER{inside}")"""
ALL_EXPERTS = """

import comigs  # has all of them, with the routers

mixture = comigs.load("FOLDER", base="{base}")"""

VLLM = """

# or, of a family whose LoRA vLLM takes (GPT-2's it does not):
# vllm serve {base} --enable-lora --max-lora-rank {most} --lora-modules expert=FOLDER"""
LLAMA_CPP = {
    "gguf": "llama-cli -m FOLDER/model.gguf",
    "lora-gguf": "llama-cli -m BASE.gguf --lora FOLDER/lora.gguf  # {base} as a GGUF file",
}


def write_cards(
    folder: Path, client: Client, form: str, experts: list[str], rank: int, place: Path
) -> None:
    """Write README.md to `place`, and of PEFT's format to each expert's folder.

    Args:
        folder: of the run.
        form: see `comigs.export.forms.FORMS`.
        experts: that are in `place`, of LoRA rank `rank`.
    """
    facts = _facts(folder, client) | {"experts": experts, "rank": rank}
    whole = form not in OF_ONE and len(experts) == client.experts.total
    title, what = WHAT[form]
    routed = whole and client.experts.routed and client.experts.total > 1
    told: dict[str, Any] = {
        "title": f"{facts['client']}: {title}",
        "what": what,
        "library": LIBRARY.get(form, "transformers"),
        "whole": whole or client.experts.total == 1,
        "top_k": client.experts.top_k if routed else None,
    }
    base = facts["base"]
    if form == "peft":
        code = ONE_EXPERT.format(base=base, inside=f"/{experts[0]}")
        code += ALL_EXPERTS.format(base=base) if whole else ""
    elif form == "lora":
        code = ONE_EXPERT.format(base=base, inside="")
        most = min((most for most in VLLM_RANKS if most >= rank), default=None)
        code += VLLM.format(base=base, most=most) if most else ""
    elif form in LLAMA_CPP:
        code = LLAMA_CPP[form].format(base=base)
    else:
        code = PLAIN.format(", trust_remote_code=True" if form == "transformers" else "")
    _write(place, facts | told | {"code": code})
    for expert in experts if form == "peft" else ():
        one = {
            "experts": [expert],
            "title": f"{facts['client']}: {expert}",
            "what": "One LoRA expert in PEFT's format.",
            "whole": client.experts.total == 1,
            "top_k": None,
            "code": ONE_EXPERT.format(base=base, inside=""),
        }
        _write(place / expert, facts | told | one)


def _write(place: Path, values: dict[str, Any]) -> None:
    environment = Environment(loader=PackageLoader("comigs", "export"), keep_trailing_newline=True)
    environment.filters["number"] = lambda x: "none" if x is None else f"{x:.2f}"
    text = environment.get_template("card.md.j2").render(values)
    (place / "README.md").write_text(text, "utf-8")


def _facts(folder: Path, client: Client) -> dict[str, Any]:
    """What all cards of a client say."""
    config = client.config
    rows = [row for row in final_rows(folder) if row["client"] == client.number]
    base, data = config.model.name, config.data.name
    trains = client.method.trains
    return {
        "base": _shown(base),
        "bundled": (BUNDLED / base).is_dir() and not Path(base).is_absolute(),
        "base_id": base if ON_HUB.fullmatch(base) and not Path(base).exists() else "",
        "client": client.run.names[client.number],
        "number": client.number,
        "clients": len(client.run.names),
        "method": client.method,
        "config": config,
        "rounds": standing(client, folder).round if trains else 0,
        "rows": rows,
        "data": _shown(data),
        "version": __version__,
        **_licences(data),
    }


def _shown(name: str) -> str:
    """A folder's name without where it is on this machine; any other name as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def _licences(data: str) -> dict[str, Any]:
    """What the federation's own record says of its texts; nothing where there is none."""
    try:
        folder = federation_folder(data)
        told = json.loads(read_plain(folder / "federation.json", folder, MIB))
        rows = [{k: str(c[k]) for k in ("name", "licence", "attribution")} for c in told["clients"]]
        return {"licences": rows, "data_title": str(told["title"])}
    except (BadInput, OSError, ValueError, KeyError, TypeError):
        return {"licences": [], "data_title": ""}
