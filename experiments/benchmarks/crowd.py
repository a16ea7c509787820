"""What registered devices cost that do not take part: start-up, memory, selection and clock.

    python -m experiments.benchmarks.crowd [--quick] [--out FILE.json]

Federations of comigs-tiny, inline, one process each: a text for every client, as a file of one
folder or in a folder of its own, devices of two kinds, of which one is there in two rounds of six.
Start-up is all that comes before round 1: libraries, the configuration, looking at the texts,
checks, fingerprints of all files. Selection and clock are drawing who takes part and is lost, and
when each update is there; nothing is trained.
Seconds are of the processor. Memory of a registered device is the difference of the peak resident
sets (VmHWM) at start-up of two federations, by the difference of their clients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import comigs
from comigs.costs.trip import expected_trip
from comigs.data.corpus import client_names, read_split
from comigs.federation.closing import close_round
from comigs.federation.conditions import devices_in
from comigs.federation.run import Run, resolve
from comigs.federation.selection import participants, wanted
from comigs_server.timing.clock import lost_devices
from experiments.benchmarks.record import RESULTS, prepare, save

PLANS = {  # registered clients, and whether each has a folder; participants of a round
    "full": ([(10_000, False), (50_000, False), (100_000, False), (100_000, True)], [50, 200]),
    "quick": ([(8, False), (16, False), (16, True)], [2, 4]),
}
DEVICES = {
    "profiles": {"evening": 60, "laptop": 40},
    "define": {"evening": {"like": "phone-low", "trace": "000011"}},
}
TEXTS = 64  # that the clients have in common
CHARACTERS = 8000  # of each
BYTES = 1_000_000  # that a client fetches, and sends
ROUNDS = 12  # whose selection and clock are measured


class Started(Exception):
    """Round 1 begins: enough is seen."""


def write_federation(folder: Path, clients: int, folders: bool) -> None:
    """One file per client; many are the same file by another name, so that disks stay small.

    Args:
        folders: whether it is in a folder of the client's own.
    """

    def place(i: int) -> Path:
        name = f"client_{i:06d}"
        return folder / name / "text.txt" if folders else folder / f"{name}.txt"

    text = "".join(read_split("topics", name, "train") for name in client_names("topics"))
    for i in range(clients):
        path = place(i)
        path.parent.mkdir(exist_ok=True)
        if i < TEXTS:
            piece = text[i * CHARACTERS // 2 :][:CHARACTERS].replace(". ", ".\n")
            path.write_text(piece, encoding="utf-8")
        else:
            os.link(place(i % TEXTS), path)


def measure(registered: int, folders: bool, taking_part: list[int]) -> dict[str, Any]:
    """Start one federation in this process, and draw its rounds."""
    with tempfile.TemporaryDirectory() as temporary:
        data, before = Path(temporary) / "data", time.process_time()
        data.mkdir()
        write_federation(data, registered, folders)
        written = time.process_time() - before
        config = {
            "data": {"name": str(data), "seq_len": 16, "test_clients": 4},
            "devices": DEVICES,
            "participation": taking_part[0] / registered,
            "threads": 1,
            "log": {"eval_every": 0, "tensorboard": False},
        }
        started: dict[str, Any] = {"registered": registered, "folders": folders}

        def watch(event: Mapping[str, Any]) -> None:
            if event["event"] == "round started":
                started["start_seconds"] = time.process_time() - written
                started["peak_bytes"] = peak()
                raise Started

        try:
            comigs.run(config, out=f"{temporary}/run", watch=watch)
        except Started:
            run = resolve(comigs.open(f"{temporary}/run").config)
        rounds = {count: round_seconds(run, count, registered) for count in taking_part}
    return started | {"round_seconds": rounds}


def peak() -> int:
    """Bytes of the peak resident set; 0 where the system does not tell."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def round_seconds(run: Run, taking_part: int, registered: int) -> float:
    """Median of the rounds: who takes part, who is lost, when updates are there, when it closes."""
    run = resolve(replace(run.config, participation=taking_part / registered))
    seconds = []
    for number in range(1, ROUNDS + 1):
        begin = time.process_time()
        ids = participants(run, number, range(registered))
        devices = devices_in(run, number, ids)
        lost = lost_devices(run, number, devices, dict.fromkeys(ids, BYTES), 0.0, 0.0)
        arrivals = {
            i: expected_trip(run.client(i), device, 1, BYTES, BYTES, 0).seconds
            for i, device in devices.items()
            if i not in lost
        }
        losses = {i: loss.seconds for i, loss in lost.items()}
        close_round(arrivals, losses, wanted(run, registered), None)
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def in_its_process(registered: int, folders: bool, taking_part: list[int]) -> dict[str, Any]:
    """`measure` in a process that has done nothing else."""
    code = (
        "import json, sys; from experiments.benchmarks.crowd import *; prepare();"
        "print(json.dumps(measure(*json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps([registered, folders, taking_part])]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        sys.exit(child.stderr)
    told: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return told


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few clients, in this process")
    parser.add_argument("--out", type=Path, default=RESULTS / "crowd.json")
    args = parser.parse_args()
    crowds, taking_part = PLANS["quick" if args.quick else "full"]
    one = measure if args.quick else in_its_process
    rows = [one(registered, folders, taking_part) for registered, folders in crowds]
    few, many = [row for row in rows if not row["folders"]][-2:]
    more = many["registered"] - few["registered"]
    growth = (many["peak_bytes"] - few["peak_bytes"]) / more
    save(args.out, rows=rows, bytes_per_registered_device=growth)
    drawn = [f"ms a round of {count}" for count in taking_part]
    table = Table("registered", "each with", "start s", "peak MB", *drawn, box=None)
    for row in rows:
        rounds = (f"{1000 * seconds:.1f}" for seconds in row["round_seconds"].values())
        cells = (f"{row['start_seconds']:.1f}", f"{row['peak_bytes'] / 1e6:.0f}")
        has = "a folder" if row["folders"] else "a file"
        table.add_row(f"{row['registered']:,}", has, *cells, *rounds)
    Console().print(table)
    Console().print(f"{growth:,.0f} bytes of memory per registered device")


if __name__ == "__main__":
    main()
