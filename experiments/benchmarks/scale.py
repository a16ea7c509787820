"""Time and host memory of a federation as its clients grow in number.

    python -m experiments.benchmarks.scale [--quick] [--out FILE.json]

Federations of comigs-tiny, inline, one process each: many registered clients of which few take part
in a round. Every client has a text file of its own (cut from the bundled topics), trains 2 steps of
4 x 128 tokens in a round, and keeps its state on disk. Memory is the peak resident set (VmHWM) of
the process; the growth per registered client compares runs with the same number of participants.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from comigs.data.corpus import client_names, read_split
from experiments.benchmarks.record import RESULTS, prepare, save

PLANS = {  # registered clients, participants per round, rounds
    "full": [(1000, 100, 10), (1000, 50, 10), (10000, 100, 10)],
    "quick": [(8, 2, 2), (16, 2, 2)],
}
CHARACTERS = 8000  # per client
CHILD = """
import json, sys, time
begin = time.perf_counter()
import comigs
from comigs.heap import keep_freed_memory
keep_freed_memory()
events = []
def watch(event):
    events.append((time.perf_counter() - begin, event))
comigs.run(json.loads(sys.argv[1]), out=sys.argv[2], watch=watch)
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]
rounds = [e["seconds"] for _, e in events if e["event"] == "round"]
start = next(t for t, e in events if e["event"] == "round started")
print(json.dumps({"peak_bytes": 1024 * int(peak), "rounds": rounds, "start": start}))
"""


def write_federation(folder: Path, clients: int) -> None:
    """One text file per client, each a piece of the bundled topics."""
    text = "".join(read_split("topics", name, "train") for name in client_names("topics"))
    step = max(1, (len(text) - CHARACTERS) // clients)
    for i in range(clients):
        piece = text[i * step : i * step + CHARACTERS].replace(". ", ".\n")
        (folder / f"client_{i:05d}.txt").write_text(piece, encoding="utf-8")


def measure(registered: int, taking_part: int, rounds: int, steps: int) -> dict:
    """Run one federation in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        data.mkdir()
        write_federation(data, registered)
        config = {
            "data": {"name": str(data), "test_clients": 4},
            "participation": taking_part / registered,
            "rounds": rounds,
            "local_steps": steps,
            "batch_size": 4,
            "threads": 1,
            "log": {"eval_every": 0, "tensorboard": False},
        }
        begin = time.perf_counter()
        command = [sys.executable, "-c", CHILD, json.dumps(config), f"{temporary}/run"]
        child = subprocess.run(command, capture_output=True, text=True)
        if child.returncode:
            sys.exit(child.stderr)
        seconds = time.perf_counter() - begin
        result = json.loads(child.stdout.splitlines()[-1])
    return {
        "registered": registered,
        "participants": taking_part,
        "rounds": rounds,
        "start_seconds": result["start"],
        "round_seconds": statistics.median(result["rounds"]),
        "participant_seconds": statistics.median(result["rounds"]) / taking_part,
        "peak_bytes": result["peak_bytes"],
        "seconds": seconds,
    }


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few clients, one step")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    args = parser.parse_args()
    plan, steps = (PLANS["quick"], 1) if args.quick else (PLANS["full"], 2)
    rows = []
    for registered, taking_part, rounds in plan:
        rows.append(measure(registered, taking_part, rounds, steps))
        growth = None
        few, many = rows[0], rows[-1]
        if few["participants"] == many["participants"] and few is not many:
            more = many["registered"] - few["registered"]
            growth = (many["peak_bytes"] - few["peak_bytes"]) / more
        save(args.out, steps=steps, rows=rows, bytes_per_registered_client=growth)
    table = Table("registered", "taking part", "start s", "round s", "s each", "peak MB", box=None)
    for row in rows:
        seconds = (f"{row[key]:.2f}" for key in ("start_seconds", "round_seconds"))
        each = f"{row['participant_seconds']:.3f}"
        peak = f"{row['peak_bytes'] / 1e6:.0f}"
        table.add_row(f"{row['registered']:,}", str(row["participants"]), *seconds, each, peak)
    Console().print(table)
    if growth is not None:
        Console().print(f"{growth:,.0f} bytes of memory per registered client")


if __name__ == "__main__":
    main()
