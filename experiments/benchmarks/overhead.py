"""What the platform costs on top of training and evaluation.

    python -m experiments.benchmarks.overhead [--rounds 5] [--engine inline] [--out FILE.json]

Four clients of comigs-tiny, 10 steps of 16 x 128 tokens a round. Overhead of a round is
(wall time - compute) / compute, where compute is the clients' training and evaluation; with several
workers compute is divided by their number.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import comigs
from comigs.store.events import RoundDone
from comigs.store.metrics import events_of
from experiments.benchmarks.record import RESULTS, prepare, save

FIXED = ["data.test_tokens=2048", "batch_size=16"]


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=("inline", "ray"), default="inline")
    parser.add_argument("--steps", type=int, default=10, help="local steps per round")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    args = parser.parse_args()
    settings = [f"engine={args.engine}", f"local_steps={args.steps}"]
    settings += FIXED
    with tempfile.TemporaryDirectory() as folder:
        result = comigs.run("quickstart", settings, out=folder, rounds=args.rounds)
        rounds = [e for e in events_of(result.folder) if isinstance(e, RoundDone)]
        workers = result.config.engine.workers or 1
    rows = []
    for event in rounds:
        compute = event.compute_seconds / workers
        rows.append({"round": event.round, "seconds": event.seconds, "compute": compute})
    shares = [row["seconds"] / row["compute"] - 1 for row in rows]
    table = Table("round", "seconds", "compute", "overhead", box=None)
    for row, share in zip(rows, shares, strict=True):
        cells = (f"{row['seconds']:.2f}", f"{row['compute']:.2f}", f"{share:.2%}")
        table.add_row(str(row["round"]), *cells)
    Console().print(table)
    Console().print(f"median overhead {statistics.median(shares):.2%} ({args.engine})")
    save(args.out, engine=args.engine, rows=rows, overhead=shares)


if __name__ == "__main__":
    main()
