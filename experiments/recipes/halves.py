"""Twice as many clients: each client's text is cut in two halves, split by split.

python -m experiments.recipes.halves multilingual --to data/multilingual-8
"""

import argparse
from pathlib import Path

from comigs.data.corpus import client_names, holds_chats, read_split
from comigs.data.names import SPLITS


def halves(text: str) -> tuple[str, str]:
    """The text's first and second half; the cut is at the end of a line."""
    cut = text.rfind("\n", 0, len(text) // 2 + 1) + 1 or len(text) // 2
    return text[:cut], text[cut:]


def write(name: str, folder: Path) -> list[str]:
    """Write a federation of twice the clients of `name`, and return their names."""
    written = []
    for client in client_names(name):
        for split in SPLITS:
            for number, text in enumerate(halves(read_split(name, client, split)), 1):
                place = folder / f"{client}-{number}"
                place.mkdir(parents=True, exist_ok=True)
                suffix = ".jsonl" if holds_chats(name, client, split) else ".txt"
                (place / f"{split}{suffix}").write_text(text, encoding="utf-8")
        written += [f"{client}-1", f"{client}-2"]
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation")
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()
    print(*write(arguments.federation, arguments.to))
