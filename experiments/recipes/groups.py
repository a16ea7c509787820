"""Clients in hidden groups: each client's text is cut in two, and nothing tells the halves' origin.

python -m experiments.recipes.groups multilingual --to data/groups-8

Clients are called 0, 1, ...: which text is whose is drawn from the seed, and written beside the
folder, here into data/groups-8.json, as a group's number for each client.
"""

import argparse
import json
from pathlib import Path

import torch

from comigs.data.corpus import client_names, holds_chats, read_split
from comigs.data.names import SPLITS
from comigs.seeds import generator
from experiments.recipes.halves import halves


def write(name: str, folder: Path, seed: int) -> list[int]:
    """Write a federation of twice the clients of `name`, and return the group of each."""
    sources = [(group, half) for group in range(len(client_names(name))) for half in (0, 1)]
    order = torch.randperm(len(sources), generator=generator(seed, "everyone", 0, "groups"))
    drawn = [sources[i] for i in order]
    for number, (group, half) in enumerate(drawn):
        client, place = client_names(name)[group], folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            suffix = ".jsonl" if holds_chats(name, client, split) else ".txt"
            text = halves(read_split(name, client, split))[half]
            (place / f"{split}{suffix}").write_text(text, encoding="utf-8")
    groups = [group for group, _ in drawn]
    truth_of(folder).write_text(json.dumps(groups) + "\n", encoding="utf-8")
    return groups


def truth_of(folder: Path) -> Path:
    """Where the groups of a federation's clients are told."""
    return folder.with_name(f"{folder.name}.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(*write(arguments.federation, arguments.to, arguments.seed))
