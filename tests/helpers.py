"""Ways to run a small federation (tests/fixtures.py), and to look at what it left."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "clients", ROOT / "server"))),
    "COLUMNS": "200",
}


# For a process that is no command: it loads libraries as fast as the command does.
LIBRARIES = """
from comigs.heap import importing, own_process
own_process()
with importing():
    import comigs.mixture.adapters
"""


def _hear_ctrl_c():
    """Tests that run in a shell's background are deaf to it, and so would be what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def client_of(config, number=0):
    """One client of the run that a configuration describes."""
    from comigs.federation.run import resolve

    return resolve(config).client(number)


def start_cli(*arguments, **options):
    """`python -m comigs ...` as a process in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "comigs", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
        **options,
    )


def events(folder, kind):
    """Events of a kind in the run's metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def numbers(folder):
    """Everything a run computed, by file: bytes of all tensors, and the test perplexities."""
    tensors = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("**/round_*/*.safetensors"))
    }
    keys = ("name", "pretrained", "before", "after", "bytes_up", "bytes_down")
    finals = {row["client"]: tuple(row[key] for key in keys) for row in events(folder, "final")}
    losses = {
        (event["round"], event["client"]): (event["loss"], event["valid_ppl"])
        for event in events(folder, "client")
    }
    return tensors, finals, losses


def stopped_and_resumed(tree, folder, after=2):
    """Run `tree` in `folder`, stop it when a round is saved, and go on. Returns the folder."""
    import comigs

    def stop(event):
        if event["event"] == "round" and event["round"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree, out=folder, watch=stop)
    return comigs.app.run.resume(folder).folder


def run_and_resumed(tree, folder, after=2):
    """Run `tree` to its end, and go on with what was there when round `after` was saved.

    That copy is what a machine that lost its power then would have. Returns both folders.
    """
    import comigs

    def copy(event):
        if event["event"] == "round" and event["round"] == after:
            shutil.copytree(folder / "whole", folder / "cut")

    whole = comigs.run(tree, out=folder / "whole", watch=copy).folder
    assert (
        max(event["round"] for event in events(folder / "cut", "round"))
        == after
        < len(events(whole, "round"))
    )
    return whole, comigs.app.run.resume(folder / "cut").folder


def assert_same_numbers(folder, other):
    """Two runs that must have computed the same, bit for bit."""
    for one, two in zip(numbers(folder), numbers(other), strict=True):
        assert sorted(one) == sorted(two)
        assert one, "nothing to compare"
        differ = {key: (one[key], two[key]) for key in one if one[key] != two[key]}
        assert not differ, f"{differ!r:.2000}"


def damage(path, how):
    """Flip a bit in the middle of a file, cut it in half, or delete it."""
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[:middle])
    else:
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def read_until(process, start):
    """Read the process's standard error until a line that begins with `start`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(start):
            return
    raise AssertionError(f"it ended without a line {start!r}:\n{''.join(lines)}")
