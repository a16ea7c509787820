"""A client process that really trains, under a memory limit that the kernel enforces.

The limit is that of a cgroup (version 1 or 2). Every page that the process touches is locked, so
that the kernel cannot make room by dropping the base or by swapping. Where no cgroup can be made
the limit is RLIMIT_DATA, which counts the process's own memory and no files.

The C library is told to return blocks of 128 kB and more as soon as they are freed, as suits a
device with little memory: what it keeps in holes by default is an eighth of the whole.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_LIMIT = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}
_NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_LOCK_WHAT_IS_TOUCHED = 1 | 2 | 4  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT


class Outcome(NamedTuple):
    """What became of a process: nothing is known of one that did not survive."""

    survived: bool
    resident: int = 0  # its peak, files that it maps included
    uncounted: int = 0  # resident at the end, but not charged to its limit


def kind() -> str:
    """How a limit is set on this machine: "v1" or "v2" (cgroup), or "RLIMIT_DATA"."""
    for version in _LIMIT:
        group = _group(version)
        try:
            group.mkdir()
        except OSError:
            continue
        usable = os.access(group / _LIMIT[version], os.W_OK)
        group.rmdir()
        if usable:
            return version
    return "RLIMIT_DATA"


def attempt(config: dict[str, Any], folder: Path, limit: int | None, by: str) -> Outcome:
    """Train `config` in a process of its own, with state in `folder`, under `limit` bytes."""
    group = _group(by) if by in _LIMIT else None

    def confine() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        elif limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    if group:
        group.mkdir()
        if limit:
            (group / _LIMIT[by]).write_text(str(limit))
    try:
        command = [sys.executable, "-m", "experiments.benchmarks.limits", str(folder), by]
        done = subprocess.run(
            [*command, json.dumps(config)],
            preexec_fn=confine,
            env=os.environ | _NO_HOLES,
            capture_output=True,
            text=True,
        )
    finally:
        if group:
            _remove(group)
    if done.returncode:
        if limit is None:
            raise RuntimeError(done.stderr)
        return Outcome(False)
    return Outcome(True, *json.loads(done.stdout))


def _group(version: str) -> Path:
    """Below our own cgroup in version 1; version 2 allows no processes in inner ones."""
    name = f"comigs-{os.getpid()}"
    if version == "v2":
        return Path("/sys/fs/cgroup") / name
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = [line.split(":")[2] for line in lines if line.split(":")[1] == "memory"]
    return Path(f"/sys/fs/cgroup/memory{own[0] if own else ''}") / name


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            return group.rmdir()
        except OSError:  # the process is still being taken down
            time.sleep(0.1)
    group.rmdir()


def _charged(by: str) -> int:
    """Bytes of this process that count towards its limit: its own and those of mapped files."""
    status = _fields("/proc/self/status", ":")
    if by not in _LIMIT:
        return status["RssAnon"] * 1024
    own = next(
        line.split(":")[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.split(":")[1] == ("memory" if by == "v1" else "")
    )
    if by == "v1":
        stat = _fields(f"/sys/fs/cgroup/memory{own}/memory.stat")
        return stat["rss"] + stat["mapped_file"]
    stat = _fields(f"/sys/fs/cgroup{own}/memory.stat")
    return stat["anon"] + stat["file_mapped"]


def _fields(path: str, separator: str = " ") -> dict[str, int]:
    pairs = (line.split(separator, 1) for line in Path(path).read_text().splitlines())
    return {k: int(v.split()[0]) for k, v in pairs if v.split() and v.split()[0].isdigit()}


def _train(folder: Path, by: str, config: dict[str, Any]) -> None:
    """In the process itself."""
    if by in _LIMIT and ctypes.CDLL(None, use_errno=True).mlockall(_LOCK_WHAT_IS_TOUCHED):
        raise OSError(ctypes.get_errno(), "pages cannot be locked")
    from comigs.lean import leave_out

    leave_out()
    import torch

    from comigs.config.load import load_config
    from comigs.costs.footprint import peak_resident
    from comigs.federation.run import resolve
    from comigs.local.round import Order, train_round

    client = resolve(load_config(config)).client(0)
    torch.set_num_threads(client.config.threads or 1)
    for number in range(1, client.config.rounds + 1):
        train_round(Order(client, number, number - 1, {}, folder))
    now = _fields("/proc/self/status", ":")["VmRSS"] * 1024
    print(json.dumps([peak_resident(), max(0, now - _charged(by))]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The process that ondevice.py starts and limits.")
    parser.add_argument("folder", type=Path, help="where its state goes")
    parser.add_argument("by", choices=[*_LIMIT, "RLIMIT_DATA"], help="how it is limited")
    parser.add_argument("config", type=json.loads, help="what it trains, as JSON")
    args = parser.parse_args()
    _train(args.folder, args.by, args.config)
