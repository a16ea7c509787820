"""Time and memory of `comigs data prepare` on a large file of chats.

    python -m experiments.benchmarks.prepare [--quick] [--size BYTES] [--kind KIND] [--out JSON]

Chats of two turns of 60 random words each, 1 GB of them and a tenth of it, shared out by a natural
id, evenly, and by labels; each in a process of its own. Seconds are of the processor. Memory is the
peak resident set (VmHWM), with what is mapped from files, and the most of it that is the process's
own (RssAnon, looked at ten times a second). In a container with a memory limit the limit is kept,
too. Rows that are in the file already stay, or are replaced where the same is measured again.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.record import RESULTS, prepare, save

SIZES = {"full": [100_000_000, 1_000_000_000], "quick": [1_000_000]}
KINDS = {
    "by user": ["--by", "user"],
    "iid": ["--clients", "8"],
    "dirichlet": ["--clients", "8", "--partition", "dirichlet", "--label", "topic", "--alpha", "1"],
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_chats(path: Path, size: int) -> int:
    """Write chats of `size` bytes together, all different; returns how many they are."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(5000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(5000)]
    written = count = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            turns = [
                {"role": role, "content": f"{rng.choice(texts)} {count}"}
                for role in ("user", "assistant")
            ]
            row = {"user": f"u{rng.randrange(20)}", "topic": rng.randrange(8), "messages": turns}
            written += file.write(json.dumps(row) + "\n")
            count += 1
    return count


def measure(source: Path, options: list[str], folder: Path) -> dict[str, float]:
    """Prepare in a process of its own, and watch its memory."""
    command = [sys.executable, "-m", "comigs", "data", "prepare", str(source), *options]
    peak = own = 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        child = subprocess.Popen([*command, "--out", out], stdout=subprocess.DEVNULL)
        while child.poll() is None:
            with suppress(OSError):  # it ends meanwhile
                status = Path(f"/proc/{child.pid}/status").read_text()
                lines = (line.split() for line in status.splitlines())
                memory = {line[0]: int(line[1]) * 1024 for line in lines if line[-1] == "kB"}
                peak = max(peak, memory.get("VmHWM:", 0))
                own = max(own, memory.get("RssAnon:", 0))
            time.sleep(0.1)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "peak_bytes": peak, "own_bytes": own}


def memory_limit() -> int | None:
    """Bytes that the cgroup of this container may have, page cache included; None: no limit."""
    for place in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int(Path("/sys/fs/cgroup", place).read_text())
            return limit if limit < 2**60 else None
    return None


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one megabyte")
    parser.add_argument("--size", type=int, action="append", help="bytes of a file")
    parser.add_argument("--kind", choices=KINDS, action="append", help="how it is shared out")
    parser.add_argument("--out", type=Path, default=RESULTS / "prepare.json")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    table = Table("file MB", "examples", "shared out", "s", "peak MB", "own MB", box=None)
    with tempfile.TemporaryDirectory() as temporary:
        for size in args.size or SIZES["quick" if args.quick else "full"]:
            source = Path(temporary) / "chats.jsonl"
            count = write_chats(source, size)
            for kind in args.kind or KINDS:
                case = {"file_bytes": size, "examples": count, "partition": kind}
                if limit := memory_limit():
                    case["limit_bytes"] = limit
                found = measure(source, KINDS[kind], Path(temporary))
                others = (r for r in rows if {k: r[k] for k in r if k not in found} != case)
                rows = [*others, case | found]
                save(args.out, rows=rows)
                numbers = (f"{found[key] / 1e6:.0f}" for key in ("peak_bytes", "own_bytes"))
                place = f"{size / 1e6:.0f}", f"{count:,}", kind
                table.add_row(*place, f"{found['seconds']:.0f}", *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
