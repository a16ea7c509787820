"""llama.cpp's own converters, as they are in its sources: to GGUF files."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from comigs.errors import BadInput, ComigsError, flat

MODEL, LORA = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
DRIVER = Path(__file__).with_name("converting.py")
TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
FETCH = (
    "pip download --no-deps --no-binary llama-cpp-python llama-cpp-python && "
    "tar xzf llama_cpp_python-*.tar.gz && mv llama_cpp_python-*/vendor/llama.cpp ."
)


def check_llama_cpp(form: str, folder: Path | None) -> None:
    """Refuse a folder that does not hold the converters.

    Raises:
        BadInput: and how they are had.
    """
    if folder is None:
        raise BadInput(
            f"--as {form} needs llama.cpp's own converter, which is in the sources of "
            f"llama-cpp-python ({FETCH}): give the folder llama.cpp as --llama-cpp or "
            "COMIGS_LLAMA_CPP"
        )
    for name in (MODEL, LORA):
        if not (folder / name).is_file():
            raise BadInput(f"--llama-cpp {folder}: there is no {name} in it; it is had by {FETCH}")


def convert_model(llama_cpp: Path, model: Path, to: Path, dtype: str) -> None:
    """Write a GGUF file of the plain model in a folder, its floats in `dtype`.

    Raises:
        ComigsError: the converter refuses it, e.g. a family or a tokenizer that it does not know.
    """
    splits = "gpt-2" if _splits_as_gpt2(model / "tokenizer.json") else ""
    arguments: list[Path | str] = [model, "--outfile", to, "--outtype", TYPES[dtype]]
    _run(["-P", DRIVER, llama_cpp / MODEL, splits, *arguments])


def convert_lora(llama_cpp: Path, adapter: Path, base: Path, to: Path) -> None:
    """Write a GGUF file of a PEFT adapter.

    Args:
        adapter: a PEFT folder, its pairs of weights as they are stored (see `write_lora`).
        base: a folder with the base's config.json.

    Raises:
        ComigsError: the converter refuses it.
    """
    _run([llama_cpp / LORA, adapter, "--base", base, "--outfile", to, "--outtype", "f32"])


def _run(command: Sequence[Path | str]) -> None:
    """Run a script with this Python."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        _, _, last = done.stderr.strip().rpartition("\n")
        hint = ": pip install 'comigs[gguf]'" if last.startswith("ModuleNotFoundError") else ""
        raise ComigsError(f"llama.cpp's converter refused it: {flat(last)}{hint}")


def _splits_as_gpt2(tokenizer: Path) -> bool:
    """Whether a tokenizer splits text before its merges as GPT-2's does: llama.cpp has to be told.

    It knows tokenizers by what they make of one text, so one of an own vocabulary is in no list.
    """
    told = json.loads(tokenizer.read_text("utf-8")) if tokenizer.is_file() else {}
    splits, merges = told.get("pre_tokenizer") or {}, told.get("model") or {}
    return (
        merges.get("type") == "BPE"
        and not merges.get("ignore_merges")
        and told.get("normalizer") is None
        and splits.get("type") == "ByteLevel"
        and bool(splits.get("use_regex"))
        and not splits.get("add_prefix_space")
    )
