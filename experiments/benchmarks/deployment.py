"""What a round costs behind a real SuperLink, with and without resident trainers.

    python -m experiments.benchmarks.deployment [--quick] [--out FILE.json]

Four devices of a generated project run as processes on loopback (TLS, node keys). Flower starts a
process for each message: either it trains by itself, as Flower means it, or it hands the message
to a trainer that stays and has the base model in memory, as comigs does. One run each.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

import comigs
from comigs.app import submission
from comigs.deploy.project import init_project
from experiments.benchmarks.loopback import QUIET, Services, free_port
from experiments.benchmarks.record import RESULTS, prepare, save

CLIENTS = 4
RESIDENT, PLAIN = "comigs_clients.device:app", "comigs_clients.app:app"
WORK = {
    "data": {"name": "data", "valid_tokens": 512, "test_tokens": 512},
    "local_steps": 5,
    "batch_size": 4,
    "threads": 1,
    "engine": {"name": "flower"},
    "log": {"tensorboard": False, "eval_every": 0},
}


def measure(folder: Path, app: str, rounds: int) -> dict[str, Any]:
    """Seconds of each round but the first, and of training and evaluation in them."""
    bundle = submission.BUNDLE
    assert RESIDENT in bundle
    submission.BUNDLE = bundle.replace(RESIDENT, app)
    seen: list[dict[str, Any]] = []
    try:
        comigs.run(WORK | {"rounds": rounds + 1}, out=folder, watch=seen.append)
    finally:
        submission.BUNDLE = bundle
    rows = [event for event in seen if event["event"] == "round"]
    return {
        "first": rows[0]["seconds"],
        "rounds": [row["seconds"] for row in rows[1:]],
        "compute": [row["compute_seconds"] for row in rows[1:]],
    }


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round each")
    parser.add_argument("--out", type=Path, default=RESULTS / "deployment.json")
    args = parser.parse_args()
    rounds = 1 if args.quick else 5
    with tempfile.TemporaryDirectory() as temporary:
        project, logs, port = Path(temporary, "project"), Path(temporary, "logs"), free_port()
        logs.mkdir()
        init_project(project, CLIENTS, None, "multilingual", 2, port)
        services = Services(project, logs, port)
        os.environ |= QUIET | {"FLWR_HOME": str(project / "flwr"), "OMP_NUM_THREADS": "1"}
        found: dict[str, dict[str, Any]] = {}
        try:
            services.start_all()
            for app in (PLAIN, RESIDENT):
                found[app] = measure(Path(temporary, app.replace(":", ".")), app, rounds)
        finally:
            services.stop()
    save(args.out, clients=CLIENTS, runs=found)
    table = Table("on a device", "first round s", "round s", "training in all s", box=None)
    for app, run in found.items():
        label = "a process per message" if app == PLAIN else "a resident trainer"
        seconds = (run["first"], median(run["rounds"]), median(run["compute"]))
        table.add_row(label, *(f"{value:.1f}" for value in seconds))
    Console().print(table)


if __name__ == "__main__":
    main()
