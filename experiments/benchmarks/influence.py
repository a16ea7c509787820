"""Which rule finds damaged text: HyperINF, DataInf, TracIN and a classifier of n-grams.

    python -m experiments.benchmarks.influence [--clients 4] [--steps 0 100] [--out FILE.json]

Of a client's training blocks 15 % have their tokens shuffled and 15 % are of another client, in
another language. Each rule ranks all of them against the client's validation text, by the model at
its start and after some local steps on the damaged blocks. The table has the AUROC of each kind of
damage against what is whole, mean over clients: 1 is all of it ranked last, 0.5 chance.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from comigs.config.load import load_config
from comigs.federation.clients import data_of, model_of
from comigs.federation.run import Client, Run, resolve
from comigs.influence.blocks import BlockGradients, blocks_of
from comigs.influence.classifier import likeness
from comigs.influence.rules import datainf, hyperinf, score, tracin
from comigs.mixture.adapters import init_adapters
from comigs.seeds import generator
from comigs.training.bilevel import train_locally
from experiments.benchmarks.record import RESULTS, prepare, save

RULES = {"hyperinf": hyperinf, "datainf": datainf, "tracin": tracin}
DAMAGE = ("shuffled", "other language")
FIXED = ["train.schedule=constant"]
SHARE = 0.15  # of the blocks, each kind


class Case(NamedTuple):
    """A client's blocks, n x L+1, what is wrong with each (0: nothing), and validation text."""

    client: Client
    blocks: Tensor
    damage: Tensor
    valid: Tensor


def damaged(run: Run, number: int, count: int, valid: int) -> Case:
    """`count` blocks of a client, drawn from the seed, some of them damaged."""
    client, length = run.client(number), run.config.data.seq_len
    rng = generator(run.config.seed, number, 0, "damage")
    data = data_of(client)
    mine = blocks_of(data.train, length)
    other = blocks_of(data_of(run.client((number + 1) % len(run.names))).train, length)
    blocks = mine[torch.randperm(len(mine), generator=rng)[:count]]
    damage, each = torch.zeros(len(blocks), dtype=torch.int64), round(SHARE * len(blocks))
    places = torch.randperm(len(blocks), generator=rng)
    for i in places[:each]:
        blocks[i] = blocks[i][torch.randperm(length + 1, generator=rng)]
    blocks[places[each : 2 * each]] = other[torch.randperm(len(other), generator=rng)[:each]]
    damage[places[:each]], damage[places[each : 2 * each]] = 1, 2
    return Case(client, blocks, damage, blocks_of(data.valid, length)[:valid])


def auroc(bad: Tensor, good: Tensor) -> float:
    """The chance that a damaged block has a higher score than a whole one; ties count half."""
    above, equal = bad[:, None] > good, bad[:, None] == good
    return float((above.double() + equal.double() / 2).mean())


def scores_of(case: Case, model: PeftModel) -> dict[str, Tensor]:
    """By rule, each block's score; gradients are made once."""
    [of_valid] = BlockGradients(case.client, model, case.valid[None])
    blocks = list(BlockGradients(case.client, model, case.blocks))
    found = {}
    for name, rule in RULES.items():
        direction = rule(of_valid, blocks)
        found[name] = torch.tensor([score(direction, block) for block in blocks])
    return found | {"classifier": likeness(case.blocks, case.valid)}


def measure(case: Case, steps: int) -> dict[str, dict[str, float]]:
    """AUROC by rule and kind of damage after `steps` local steps."""
    model = model_of(case.client)
    init_adapters(model, case.client.config.seed, case.client.number, case.client.method.shares)
    if steps:
        data = replace(data_of(case.client), train=case.blocks)
        train_locally(
            case.client, model, data.train, data.valid, {},
            round_number=1, steps=steps, steps_done=0,
        )  # fmt: skip
    whole = case.damage == 0
    return {
        rule: {
            kind: auroc(scores[case.damage == i + 1], scores[whole])
            for i, kind in enumerate(DAMAGE)
        }
        for rule, scores in scores_of(case, model).items()
    }


def main() -> None:
    """Measure, print a table, write JSON after each client."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=4, help="clients of the bundled languages")
    parser.add_argument("--blocks", type=int, default=200, help="training blocks of each")
    parser.add_argument("--valid", type=int, default=48, help="validation blocks of each")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 100], help="local steps before")
    parser.add_argument("--out", type=Path, default=RESULTS / "influence.json")
    args = parser.parse_args()
    run = resolve(load_config(None, FIXED))
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for number in range(args.clients):
        case, begin = damaged(run, number, args.blocks, args.valid), time.perf_counter()
        name = run.names[number]
        found[name] = {str(steps): measure(case, steps) for steps in args.steps}
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        save(args.out, blocks=args.blocks, valid=args.valid, auroc=found)
    table = Table("rule", "steps", *DAMAGE, box=None)
    for steps in map(str, args.steps):
        for rule in (*RULES, "classifier"):
            each = [[of[steps][rule][kind] for of in found.values()] for kind in DAMAGE]
            table.add_row(rule, steps, *(f"{sum(v) / len(v):.2f}" for v in each))
    Console().print(table)


if __name__ == "__main__":
    main()
