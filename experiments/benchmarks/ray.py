"""Two Ray workers against this process, and what each further worker costs in memory.

    python -m experiments.benchmarks.ray [--quick] [--out FILE.json]

Four clients with one thread each, on comigs-tiny and on a random base of GPT-2's 124M shape. The
same rounds run inline and in two workers, in turn; the first round of a run, in which clients load
their text, does not count. Memory is each worker's after its first round, as Linux counts it:
`private` is what the worker would give back if it ended, `PSS` its share of everything.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config
from transformers.utils.logging import disable_progress_bar

import comigs
from comigs.backbone.names import BUNDLED
from comigs.store.eventjson import to_object
from comigs.store.events import RoundDone
from comigs.store.metrics import events_of
from experiments.benchmarks.record import RESULTS, prepare, save

SHAPES = {"gpt2-124M": GPT2Config()}
ENGINES = {"inline": ["engine=inline"], "ray": ["engine=ray", "engine.workers=2"]}
WORKERS = (1, 2, 3)  # in turn, for memory
FIXED = ["threads=1", "log.tensorboard=false", "log.eval_every=0"]
FIXED += ["data.valid_tokens=256", "data.test_tokens=256"]  # runs end with an evaluation


def make_base(config: GPT2Config, folder: Path) -> Path:
    """A folder with random weights of a shape, and the bundled tokenizer."""
    disable_progress_bar()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny").save_pretrained(folder)
    return folder


def rounds_of(settings: list[str], rounds: int) -> list[dict[str, Any]]:
    """The rounds of a run but its first."""
    with tempfile.TemporaryDirectory() as folder:
        comigs.run("quickstart", [*FIXED, *settings], out=folder, rounds=rounds + 1)
        told = [e for e in events_of(Path(folder)) if isinstance(e, RoundDone)]
        return [to_object(event) for event in told if event.round > 1]


def compare(name: str, settings: list[str], repeats: int, rounds: int) -> dict[str, Any]:
    """Seconds of the same rounds in both engines, and what a client loses beside another one."""
    wall: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    compute: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for _ in range(repeats):
        for engine, choice in ENGINES.items():
            for event in rounds_of([*settings, *choice], rounds):
                wall[engine].append(event["seconds"])
                compute[engine].append(event["compute_seconds"])
    best = {engine: min(times) for engine, times in wall.items()}
    middle = {engine: statistics.median(times) for engine, times in wall.items()}
    work = {engine: min(times) for engine, times in compute.items()}
    return {
        "base": name,
        "seconds": wall,
        "speedup of minima": best["inline"] / best["ray"],
        "speedup of medians": middle["inline"] / middle["ray"],
        "compute, ray/inline": work["ray"] / work["inline"],
        "idle share of ray": 1 - work["ray"] / (2 * best["ray"]),
    }


def memory_of(pid: int) -> dict[str, int]:
    """Bytes that a process holds: resident, proportional and private."""
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        kilobytes[key] = int(value.split()[0])
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {
        "rss": 1024 * kilobytes["Rss"],
        "pss": 1024 * kilobytes["Pss"],
        "private": 1024 * private,
    }


def workers_of_this_process() -> list[int]:
    """Process ids of the Ray actors below this process."""
    parents, actors = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (folder / "cmdline").read_bytes().startswith(b"ray::Actor"):
                actors.append(int(folder.name))
    return [pid for pid in actors if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    above = set()
    while pid := parents.get(pid, 0):
        above.add(pid)
    return above


def memory(name: str, settings: list[str], workers: int) -> dict[str, Any]:
    """What each of `workers` holds after a round of one short step, which leaves little behind."""
    held: list[dict[str, int]] = []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            held.extend(memory_of(pid) for pid in workers_of_this_process())

    short = ["local_steps=1", "batch_size=1", "data.seq_len=16"]
    choice = ["engine=ray", f"engine.workers={workers}"]
    with tempfile.TemporaryDirectory() as folder:
        comigs.run(
            "quickstart", [*FIXED, *settings, *short, *choice], out=folder, rounds=1, watch=watch
        )
    return {"base": name, "workers": workers, "each": held}


def show(speed: list[dict[str, Any]], held: list[dict[str, Any]]) -> None:
    """Print both tables."""
    table = Table(
        "base", "inline s", "ray s", "speed-up", "of medians", "client beside one", box=None
    )
    for row in speed:
        best = (f"{min(row['seconds'][engine]):.2f}" for engine in ENGINES)
        ratios = (row["speedup of minima"], row["speedup of medians"], row["compute, ray/inline"])
        table.add_row(row["base"], *best, *(f"{ratio:.2f}" for ratio in ratios))
    Console().print(table)
    table = Table(
        "base", "workers", "private MB of each", "PSS MB of each", "RSS MB of each", box=None
    )
    for row in held:
        cells = (
            " ".join(f"{each[key] / 1e6:.0f}" for each in row["each"])
            for key in ("private", "pss", "rss")
        )
        table.add_row(row["base"], str(row["workers"]), *cells)
    Console().print(table)


def main() -> None:
    """Measure, print two tables, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round each")
    parser.add_argument("--out", type=Path, default=RESULTS / "ray.json")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    work = ["local_steps=1", "batch_size=1", "data.seq_len=16"] if args.quick else []
    repeats, rounds = (1, 1) if args.quick else (args.repeats, 2)
    with tempfile.TemporaryDirectory() as folder:
        bases = {"comigs-tiny": "model=comigs-tiny"}
        for name, config in SHAPES.items():
            bases[name] = f"model={make_base(config, Path(folder) / name)}"
        speed = []
        for name, model in bases.items():
            length = (
                ["local_steps=5"] if name == "comigs-tiny" else ["local_steps=1", "batch_size=4"]
            )
            speed.append(compare(name, [model, *length, *work], repeats, rounds))
        held = [memory(name, [model], n) for name, model in bases.items() for n in WORKERS]
    show(speed, held)
    save(args.out, speed=speed, memory=held)


if __name__ == "__main__":
    main()
