"""What a router update costs: alternation against the first-order gradient.

    python -m experiments.benchmarks.router [--rounds 3] [--out FILE.json]

One client of comigs-tiny: 30 local steps of 8 x 128 tokens, then 10 router steps (tau = 30). Kinds
run in turn; seconds are minima over the rounds.
"""

import argparse
import time
from pathlib import Path

from peft import PeftModel
from rich.console import Console
from rich.table import Table

from comigs.config.load import load_config
from comigs.federation.clients import data_of, model_of
from comigs.federation.run import Client, resolve
from comigs.mixture.adapters import init_adapters
from comigs.training.bilevel import train_locally
from experiments.benchmarks.record import RESULTS, prepare, save

STEPS = 30  # local steps of a round, and tau
FIXED = ["batch_size=8", "model.dtype=bfloat16"]
KINDS = {
    "no router steps": ["router.trainable=false"],
    "alternating": [],
    "first order, 1 inner step": ["router.grad=first_order", "router.inner_steps=1"],
    "first order, 3 inner steps": ["router.grad=first_order"],
}


def seconds(model: PeftModel, client: Client) -> float:
    """Wall time of one round from the start."""
    init_adapters(model, client.config.seed, 0)
    data = data_of(client)
    begin = time.perf_counter()
    train_locally(
        client,
        model,
        data.train,
        data.valid,
        {},
        round_number=1,
        steps=STEPS,
        steps_done=0,
    )
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print a table, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "router.json")
    args = parser.parse_args()
    fixed = [f"local_steps={STEPS}", f"router.every={STEPS}", *FIXED]
    clients = {
        kind: resolve(load_config(None, [*fixed, *change])).client(0)
        for kind, change in KINDS.items()
    }
    model = model_of(next(iter(clients.values())))
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(args.rounds + 1):  # the first is a warm-up
        for kind, client in clients.items():
            times[kind].append(seconds(model, client))
    best = {kind: min(values[1:]) for kind, values in times.items()}
    table = Table("router", "s per round", "against alternating", box=None)
    for kind, value in best.items():
        table.add_row(kind, f"{value:.2f}", f"{value / best['alternating']:.2f}")
    Console().print(table)
    save(args.out, seconds=best)


if __name__ == "__main__":
    main()
