"""How little memory one client needs to train a 135M model, against what comigs predicts.

    python -m experiments.benchmarks.ondevice [--experts 2] [--dtype nf4] [--quick]

A process of its own trains two rounds of one step, and saves its state, of a random Llama-shaped
model whose base is mapped from a file in its dtype: 2 x 128 tokens, one sequence at a time, layers
recomputed in the backward pass, loss in chunks. It does so under a memory limit that the kernel
enforces (limits.py), and the smallest limit that it survives is found in steps of 25 MB. Pages of
libraries that other processes had in memory are not charged to it; they are added to the limit.
Rows are saved as they come, beside those of earlier runs.
"""

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from comigs.backbone.arithmetic import fastest
from comigs.backbone.names import BUNDLED
from comigs.config.load import load_config
from comigs.costs.footprint import process_memory
from comigs.federation.run import resolve
from experiments.benchmarks.limits import Outcome, attempt, kind
from experiments.benchmarks.record import RESULTS, save
from experiments.benchmarks.step import SHAPES

DTYPES = ("float32", "bfloat16", "int8", "nf4")
SHAPE: PretrainedConfig = SHAPES["llama-135M"]
WORDS = ["mira", "tolu", "sanke", "brifo", "zelt", "ando", "kypra", "rem", "ulste", "no", "vai"]
STEP = 25_000_000


def write_inputs(folder: Path) -> None:
    """Write the model with a tokenizer, and one client's text, into `folder`."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(SHAPE, dtype=torch.bfloat16)
    base.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny").save_pretrained(folder / "model")
    rng = random.Random(0)
    lines = (" ".join(rng.choices(WORDS, k=8)) + ".\n" for _ in range(300))
    (folder / "text").mkdir()
    (folder / "text" / "client.txt").write_text("".join(lines), encoding="utf-8")


def configuration(folder: Path, dtype: str, experts: int, length: int) -> dict[str, Any]:
    return {
        "model": {"name": str(folder / "model"), "dtype": dtype, "compute": fastest(dtype)},
        "data": {"name": str(folder / "text"), "seq_len": length, "valid_tokens": 2 * length},
        "experts": {"specialists": experts - 1, "top_k": min(2, experts)},
        "router": {"every": 1, "steps": 1},
        "rounds": 2,
        "local_steps": 1,
        "batch_size": 2,
        "micro_batch_size": 1,
        "threads": 1,
        "train": {"checkpointing": True, "loss": "chunked"},
    }


def try_limit(config: dict[str, Any], limit: int | None, by: str) -> Outcome:
    """Run the process with the base out of the page cache, so that it is charged for it."""
    folder = Path(config["model"]["name"]).parent
    for file in folder.glob("**/*.safetensors"):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with tempfile.TemporaryDirectory() as folder:
        return attempt(config, Path(folder), limit, by)


def smallest_limit(config: dict[str, Any], start: int, by: str) -> int:
    """The smallest multiple of STEP, in bytes, that the process survives; `start` is a guess."""
    works, fails = None, 0
    limit = start // STEP
    while works is None or works - fails > 1:
        if try_limit(config, limit * STEP, by).survived:
            works = limit
            limit = max(fails + 1, works - 2) if fails == 0 else (works + fails) // 2
        else:
            fails = limit
            limit = limit + 2 if works is None else (works + fails) // 2
    return works * STEP


def measure(folder: Path, dtype: str, experts: int, length: int, by: str) -> dict[str, Any]:
    config = configuration(folder, dtype, experts, length)
    try_limit(config, None, by)  # makes the copy of the base that is mapped from now on
    free = try_limit(config, None, by)
    limit = smallest_limit(config, free.resident - free.uncounted, by) + free.uncounted
    predicted = process_memory(resolve(load_config(config)).client(0))
    return {
        "dtype": dtype,
        "compute": config["model"]["compute"],
        "experts": experts,
        "resident": free.resident,
        "uncounted": free.uncounted,
        "smallest_limit": limit,
        "predicted": predicted,
        "predicted/resident": predicted / free.resident,
        "predicted/limit": predicted / limit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, action="append", help="1, 2, 4 and 8 unless given")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="all unless given")
    parser.add_argument("--quick", action="store_true", help="one expert, short sequences")
    parser.add_argument("--out", type=Path, default=RESULTS / "ondevice.json")
    args = parser.parse_args()
    counts, length = ([1], 16) if args.quick else (args.experts or [1, 2, 4, 8], 128)
    dtypes = args.dtype or (["bfloat16"] if args.quick else list(DTYPES))
    by = kind()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        write_inputs(Path(folder))
        rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
        for point in [(dtype, experts) for dtype in dtypes for experts in counts]:
            row = measure(Path(folder), *point, length, by)
            rows = sorted([r for r in rows if _point(r) != point] + [row], key=_order)
            save(args.out, limited_by=by, rows=rows)
    sizes = ("resident", "smallest_limit", "predicted")
    heads = ("resident MB", "smallest limit MB", "predicted MB")
    table = Table("base", "experts", *heads, "ratio", box=None)
    for row in rows:
        megabytes = (f"{row[k] / 1e6:.0f}" for k in sizes)
        table.add_row(
            row["dtype"], str(row["experts"]), *megabytes, f"{row['predicted/limit']:.2f}"
        )
    Console().print(table)


def _point(row: dict[str, Any]) -> tuple[str, int]:
    return row["dtype"], row["experts"]


def _order(row: dict[str, Any]) -> tuple[int, int]:
    return DTYPES.index(row["dtype"]), row["experts"]


if __name__ == "__main__":
    main()
