"""Federations of chats for tests: written as a user would write them."""

import json
import random

from comigs.data.corpus import client_names
from comigs.data.names import SPLITS
from tests.fixtures import WORDS


def chat(asked, answered):
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    }


def write_split(folder, client, split, rows):
    """Write <client>/<split>.jsonl; a text is a line as it is."""
    (folder / client).mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    text = "".join(f"{line}\n" for line in lines)
    (folder / client / f"{split}.jsonl").write_text(text, encoding="utf-8")
    client_names.cache_clear()


def made_up_chats(seed, count, longest=6):
    """Chats of a few words each, no two of one length pattern."""
    rng = random.Random(seed)

    def words():
        return " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))

    return [chat(words(), words()) for _ in range(count)]


def write_federation(folder, clients=("ana", "bo", "cy"), counts=(24, 6, 6)):
    for number, client in enumerate(clients):
        for split, count in zip(SPLITS, counts, strict=True):
            seed = f"{number} {split}"
            write_split(folder, client, split, made_up_chats(seed, count + number))
    return folder
