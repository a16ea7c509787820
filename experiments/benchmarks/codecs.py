"""What codecs take off a real update: sparsify, then quantise, against the other order.

    python -m experiments.benchmarks.codecs [--rounds 2] [--keep 0.05 0.1 0.3] [--out FILE.json]

A short run of the quickstart, then every client's update of its last round, packed and unpacked
with each codec. The table has, as means over clients, the bytes that travel as a share of float32,
and the length of what is lost as a share of the update's (without error feedback, which sends it
in later rounds).
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from torch import Tensor

import comigs
from comigs.app.result import RunResult
from comigs.config.privacy import PayloadConfig
from comigs.federation.run import resolve
from comigs.messages.codecs import unsent, wire_bytes
from comigs.messages.sparse import SPARSE
from comigs.messages.update import minus, norm_of
from comigs.store.state import read_state
from experiments.benchmarks.record import RESULTS, prepare, save

SOURCE: Mapping[str, Any] | str = "quickstart"
FIXED = ["log.eval_every=0", "log.tensorboard=false"]
FIXED += ["batch_size=4", "data.valid_tokens=2048", "data.test_tokens=2048"]
DENSE = ("bf16", "int8")


def updates_of(result: RunResult) -> list[dict[str, Tensor]]:
    """Of each client of a finished run, what it trained in the last round, less what it got."""
    run = resolve(result.config)
    last, shares = run.config.rounds, run.method.shares
    began = read_state(result.folder / "server", last - 1)[0]["shared"]
    updates = []
    for number in range(len(run.names)):
        tensors = read_state(result.folder / "clients" / str(number), last)[0]["tensors"]
        updates.append(minus({n: t for n, t in tensors.items() if shares(n)}, began))
    return updates


class Row(NamedTuple):
    """A codec: bytes of an update, their share of float32, and the share of its length lost."""

    codec: str
    keep: float | None
    bytes: float
    share: float
    error: float


def row_of(payload: PayloadConfig, updates: list[dict[str, Tensor]]) -> Row:
    """Bytes and error of a codec, means over the updates."""
    whole, packed, lost = [], [], []
    for update in updates:
        shapes = {name: tuple(tensor.shape) for name, tensor in update.items()}
        whole.append(wire_bytes(PayloadConfig(), shapes))
        packed.append(wire_bytes(payload, shapes))
        lost.append(norm_of(unsent(payload, update)) / norm_of(update))
    keep = payload.keep if payload.codec in SPARSE else None
    return Row(payload.codec, keep, mean(packed), mean(packed) / mean(whole), mean(lost))


def main() -> None:
    """Run, measure, print a table, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of the run; from 2 up")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.05, 0.1, 0.3])
    parser.add_argument("--out", type=Path, default=RESULTS / "codecs.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = [f"rounds={args.rounds}", *FIXED]
        result = comigs.run(SOURCE, given, out=Path(folder, "run"))
        updates = updates_of(result)
    rows = [row_of(PayloadConfig(codec), updates) for codec in DENSE]
    rows += [row_of(PayloadConfig(codec, keep), updates) for keep in args.keep for codec in SPARSE]
    save(args.out, rounds=args.rounds, clients=len(updates), rows=[row._asdict() for row in rows])
    table = Table("codec", "keep", "bytes", "of float32", "error", box=None)
    for row in rows:
        keep = "" if row.keep is None else str(row.keep)
        table.add_row(row.codec, keep, f"{row.bytes:,.0f}", f"{row.share:.1%}", f"{row.error:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
