"""Whether CoBo's weights find hidden groups: the adjusted Rand index of finished runs.

    python -m experiments.benchmarks.groups RUN... [--out FILE.json]

Two clients are together where their weight has risen above where it began, and so are all who are
linked by such pairs. The federation is one of experiments/recipes/groups.py.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from comigs.config.load import load_config
from comigs.errors import BadInput
from comigs.methods.cobo import START, WEIGHT
from comigs.store.plain import from_home
from comigs.store.state import newest_state, state_root
from experiments.benchmarks.record import prepare, save
from experiments.recipes.groups import truth_of

Weights = Mapping[tuple[int, int], float]


def adjusted_rand(a: Sequence[int], b: Sequence[int]) -> float:
    """Of two groupings of the same things: 1 where they are equal, about 0 where by chance.

    (sum_ij C(n_ij, 2) - e) / ((s_a + s_b) / 2 - e) with s = sum_i C(n_i, 2) and
    e = s_a s_b / C(n, 2) (Hubert and Arabie, 1985).
    """
    both, of_a, of_b = (
        sum(comb(count, 2) for count in Counter(each).values())
        for each in (zip(a, b, strict=True), a, b)
    )
    expected = of_a * of_b / comb(len(a), 2)
    most = (of_a + of_b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def linked(weights: Weights, count: int) -> list[int]:
    """The group of each client, named by its lowest one: who is linked by weights above START."""
    group = list(range(count))
    for i, j in combinations(range(count), 2):
        if weights.get((i, j), START) > START:
            low, high = sorted((group[i], group[j]))
            group = [low if each == high else each for each in group]
    return group


def weights_of(folder: Path, count: int) -> dict[tuple[int, int], float]:
    """What the clients of a finished run have learnt of each other: a pair's two, their mean."""
    known: dict[tuple[int, int], list[float]] = {}
    for client in range(count):
        state = newest_state(state_root(folder, client))
        kept = state[2].get("kept", {}) if state else {}
        for name, weight in kept.items():
            if name.startswith(WEIGHT):
                peer = int(name.removeprefix(WEIGHT))
                known.setdefault((min(client, peer), max(client, peer)), []).append(weight)
    return {pair: mean(both) for pair, both in known.items()}


def found(folder: Path) -> dict[str, object]:
    """The groups that a run has found, those that there are, and how far they agree.

    Raises:
        BadInput: it is no run of `cobo`, or of no federation of the recipe.
    """
    config = load_config(folder / "config.yaml")
    truth = truth_of(Path(from_home(config.data.name)))
    if config.method != "cobo" or not truth.is_file():
        raise BadInput(f"{folder} is no run of cobo on texts of experiments/recipes/groups.py")
    hidden = json.loads(truth.read_text("utf-8"))
    weights = weights_of(folder, len(hidden))
    groups = linked(weights, len(hidden))
    inside = [w for (i, j), w in weights.items() if hidden[i] == hidden[j]]
    across = [w for (i, j), w in weights.items() if hidden[i] != hidden[j]]
    return {
        "groups": groups,
        "hidden": hidden,
        "adjusted_rand": adjusted_rand(groups, hidden),
        "inside": mean(inside or [START]),
        "across": mean(across or [START]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    prepare()
    results = {str(folder): found(folder) for folder in arguments.runs}
    table = Table("run", "adjusted Rand", "weight inside", "weight across", "groups")
    for name, each in results.items():
        numbers = (f"{each[key]:.3f}" for key in ("adjusted_rand", "inside", "across"))
        table.add_row(name, *numbers, str(each["groups"]))
    Console(width=140).print(table)
    if arguments.out:
        save(arguments.out, runs=results)


if __name__ == "__main__":
    main()
