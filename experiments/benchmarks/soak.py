"""A long run of flaky devices behind a real SuperLink: what grows, and what it costs in perplexity.

    python -m experiments.benchmarks.soak [--rounds 200] [--quick] [--out FILE.json]

Eight devices of a generated project run as processes on loopback (TLS, node keys). From the seed
come kills of trainers, executors, SuperNodes and the SuperLink, trainers that pause for seconds or
for longer than `server.round_timeout`, and one client's updates are far too large, so the server
refuses them. The calm runs are the same configuration in one process: with nothing refused, for
several seeds, whose distance is the noise; and with that client refused, but nothing else. What is
found is written after each look.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from statistics import stdev
from typing import Any

from rich.console import Console
from rich.table import Table

import comigs
from comigs.data.corpus import client_names, federation_folder
from comigs.deploy.flowercli import QUIET
from comigs.deploy.project import init_project
from experiments.benchmarks.loopback import Services, free_port
from experiments.benchmarks.record import RESULTS, prepare, save

CLIENTS, ROUND_TIMEOUT, LOOKS = 8, 120.0, 20  # eight trainers take a minute to load on two cores
POISONED = CLIENTS - 1
SEEDS = (42, 45, 47)  # of the calm runs; the first is that of the flaky one
PER_CLIENT = {
    "trainer killed": 0.02,
    "trainer pauses": 0.05,
    "trainer hangs": 0.002,
    "executor killed": 0.01,
    "SuperNode killed": 0.005,
}
PER_ROUND = {"SuperLink killed": 0.02}


def write_federation(folder: Path) -> None:
    """Texts of eight clients: languages and topics."""
    folder.mkdir()
    for name in ("multilingual", "topics"):
        for client in client_names(name)[: CLIENTS // 2]:
            shutil.copytree(federation_folder(name) / client, folder / client)


def settings(rounds: int) -> dict[str, Any]:
    return {
        "name": "soak",
        "data": {"name": "data", "seq_len": 64, "valid_tokens": 512, "test_tokens": 4096},
        "experts": {"specialists": [0, 1, 1, 1, 3, 3, 3, 1], "rank": 4},
        "router": {"lr": 0.05, "every": 4, "steps": 1},
        "rounds": rounds,
        "local_steps": 2,
        "batch_size": 2,
        "threads": 1,
        "server": {"round_timeout": ROUND_TIMEOUT, "max_norm": 5.0},
        "faults": {"poisoned": [POISONED], "scale": 1e4},
        "log": {"tensorboard": False, "eval_every": 0},
    }


class Trouble:
    """Does to the devices what the seed says, once a round."""

    def __init__(self, services: Services, names: list[str], seed: int) -> None:
        self._services, self._names, self._rng = services, names, random.Random(seed)
        self._away: dict[str, threading.Thread] = {}
        self.counts = dict.fromkeys(PER_CLIENT | PER_ROUND, 0)

    def in_a_round(self) -> None:
        """Draw faults, and cause them while the clients work."""
        ways: dict[str, Callable[[str], None]] = {
            "trainer killed": lambda name: self._signal(name, "KILL"),
            "trainer pauses": self._pause,
            "trainer hangs": lambda name: self._signal(name, "STOP"),
            "executor killed": self._executor,
            "SuperNode killed": self._node,
        }
        time.sleep(self._rng.uniform(0, 3))
        for name in self._names:
            for fault, cause in ways.items():
                if self._rng.random() < PER_CLIENT[fault] and not self._is_away(name):
                    self.counts[fault] += 1
                    cause(name)
        if self._rng.random() < PER_ROUND["SuperLink killed"]:
            self.counts["SuperLink killed"] += 1
            self._services.kill("superlink")
            self._services.start("superlink")

    def end(self) -> None:
        """Wait until every device is back."""
        for thread in self._away.values():
            thread.join()

    def _is_away(self, name: str) -> bool:
        return name in self._away and self._away[name].is_alive()

    def _signal(self, name: str, signal_name: str) -> None:
        pattern = f"comigs_clients.trainer {self._services.folder}/devices/{name}/"
        subprocess.run(["pkill", f"-{signal_name}", "-f", pattern], check=False)

    def _pause(self, name: str) -> None:
        self._signal(name, "STOP")
        threading.Timer(self._rng.uniform(2, 20), self._signal, (name, "CONT")).start()

    def _executor(self, name: str) -> None:
        self._services.kill(f"clientapp-{name}")
        self._services.start(f"clientapp-{name}")

    def _node(self, name: str) -> None:
        self._services.kill_device(name)
        self._away[name] = threading.Thread(target=self._services.bring_back, args=(name,))
        self._away[name].start()


def sizes(services: Services, run: str) -> dict[str, float]:
    """What is held now: MB of memory (the largest of a kind) and of files, and how many files."""
    marks = {
        "superlink": ("flower-superlink", str(services.folder)),
        "serverapp": ("flwr-serverapp", f"127.0.0.1:{services.ports['superlink', 8000]} "),
        "trainer": ("comigs_clients.trainer", str(services.folder)),
    }
    memory = dict.fromkeys(marks, 0.0)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().replace("\0", " ")
            pages = int((process / "statm").read_text().split()[1])
        except OSError:  # it has ended
            continue
        for name, both in marks.items():
            if all(mark in words for mark in both):
                memory[name] = max(memory[name], pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    kept = [p for part in ("server", "devices") for p in (services.folder / part).rglob("*")]
    files = [p for p in kept if run in p.parts and p.is_file()]
    return {
        **{f"{name} MB": found for name, found in memory.items()},
        "files": len(files),
        "files MB": _megabytes(files),
        "database MB": _megabytes((services.folder / "server/state").iterdir()),
        "logs MB": _megabytes(p for p in services.logs.rglob("*.log")),
    }


def _megabytes(files: Iterable[Path]) -> float:
    """Of files, some of which may be gone."""
    total = 0.0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size / 1e6
    return total


def flaky(folder: Path, rounds: int, seed: int, keep: Callable[..., None]) -> None:
    """The run on the devices. `keep` is told what was held on the way, and what happened."""
    project, logs = folder / "project", folder / "logs"
    logs.mkdir()
    port = free_port()
    fleet = init_project(project, CLIENTS, None, str(folder / "data"), 2, port)
    names = [device.slug for device in fleet.devices]
    services = Services(project, logs, port)
    os.environ |= QUIET | {"FLWR_HOME": str(project / "flwr"), "OMP_NUM_THREADS": "1"}
    trouble, looks, every = Trouble(services, names, seed), [], max(1, rounds // LOOKS)
    failures: Counter[str] = Counter()
    begin = time.perf_counter()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "round started":
            trouble.in_a_round()
        elif event["event"] == "failure":
            failures[re.sub(r"\d[\d.]*", "N", event["reason"])] += 1
        elif event["event"] == "round" and event["round"] % every == 0:
            run = next((project / "server/runs").iterdir()).name
            seconds = time.perf_counter() - begin
            held = sizes(services, run)
            looks.append({"round": event["round"], "seconds": seconds, **held})
            keep(looks=looks, faults=trouble.counts, failures=failures)

    try:
        services.start_all()
        tree = settings(rounds) | {"engine": {"name": "flower"}}
        result = comigs.run(tree, out=folder / "flaky", watch=watch)
    finally:
        trouble.end()
        services.stop()
    keep(flaky={row["name"]: row["after"] for row in result.table}, failures=failures)


def calm(folder: Path, rounds: int, **changes: Any) -> dict[str, float]:
    """Test perplexity by client of the same run in this process, with `changes`."""
    tree = settings(rounds) | changes
    tree["data"] = tree["data"] | {"name": str(folder / "data")}
    with tempfile.TemporaryDirectory() as out:
        table = comigs.run(tree, out=Path(out) / "run").table
    return {row["name"]: row["after"] for row in table}


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"rounds": 3 if args.quick else args.rounds}

    def keep(**parts: Any) -> None:
        found.update(parts)
        save(args.out, **found)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_federation(folder / "data")
        rounds = found["rounds"]
        keep(calm={seed: calm(folder, rounds, seed=seed, faults={}) for seed in SEEDS})
        keep(refused=calm(folder, rounds))
        flaky(folder, found["rounds"], args.seed, keep)
    show(found)


def show(found: dict[str, Any]) -> None:
    """Print what was found."""
    console = Console()
    held = Table(*found["looks"][0], box=None)
    for look in found["looks"]:
        held.add_row(*(f"{value:,.1f}".removesuffix(".0") for value in look.values()))
    console.print(held)
    console.print(f"Faults: {found['faults']}")
    console.print(f"Answers that the server did without: {dict(found['failures'])}")
    table = Table("client", "calm", "sd of seeds", "one refused", "flaky", box=None)
    for name, after in found["flaky"].items():
        runs = [run[name] for run in found["calm"].values()]
        numbers = (runs[0], stdev(runs), found["refused"][name], after)
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    console.print(table)


if __name__ == "__main__":
    main()
