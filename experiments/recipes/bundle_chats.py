"""Make the bundled federation `skills`: four clients, each with questions of its own kind.

    python -m experiments.recipes.bundle_chats --out comigs/data/bundled

Countries, animals and verbs are from the tables in experiments/recipes/skills, which were written
for comigs; sums are drawn from a seed. What a question is about (a country, an animal, a verb, a
sum) is in one split only, so that the test asks about nothing that was trained on.
"""

import argparse
import csv
import json
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path

TABLES = Path(__file__).parent / "skills"
NAME = "skills"
HELD_OUT = 10  # one subject of so many is for validation, one for the test
SUMS = 60  # of each kind
Pair = tuple[str, str]  # question, answer
Row = dict[str, str]

COUNTRY = (
    ("What is the capital of {name}?", "The capital of {name} is {capital}."),
    ("Which languages do people speak in {name}?", "In {name} people speak {language}."),
    ("What do people pay with in {name}?", "In {name} people pay with the {currency}."),
    (
        "Where is {name}?",
        "{name} is in {continent}, next to {neighbour}, and its capital is {capital}.",
    ),
)
ANIMAL = (
    ("Where does {a} live?", "{A} lives {home}."),
    ("What does {a} eat?", "{A} is a{n} {kind} that feeds on {food}."),
    ("What is a young {name} called?", "A young {name} is called a{young_n} {young}."),
    ("Tell me something about the {name}.", "The {name} is a{n} {kind}, and {fact}."),
    (
        "Is {a} a{n} {kind}, and what does it like to eat?",
        "Yes, {a} is a{n} {kind}. It likes to eat {food}.",
    ),
)
VERB = (
    ("Put this into the past: {Who} {third} {rest}.", "{Who} {past} {rest}."),
    ("Put this into the future: {Who} {third} {rest}.", "{Who} will {base} {rest}."),
    ("Make this a question: {Who} {third} {rest}.", "Does {who} {base} {rest}?"),
    ("Say the opposite: {Who} {third} {rest}.", "{Who} does not {base} {rest}."),
)
GOODS = ("apple", "pencil", "ticket", "book", "lamp", "cup", "candle", "chair")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gita", "Hugo")
UNITS = (("hour", "minutes", 60), ("week", "days", 7), ("kilometre", "metres", 1000))


def table(name: str) -> list[Row]:
    """The rows of a table, by column."""
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def countries() -> Iterator[list[Pair]]:
    """Four questions on each country."""
    for row in table("countries"):
        yield [(asked.format(**row), said.format(**row)) for asked, said in COUNTRY]


def animals() -> Iterator[list[Pair]]:
    """Five questions on each animal."""
    for row in table("animals"):
        a = f"{_article(row['name'])} {row['name']}"
        n, young_n = (_article(row[key])[1:] for key in ("kind", "young"))
        words = row | {"a": a, "A": a.capitalize(), "n": n, "young_n": young_n}
        yield [(asked.format(**words), said.format(**words)) for asked, said in ANIMAL]


def verbs() -> Iterator[list[Pair]]:
    """Four changes of a sentence with each verb."""
    for row in table("verbs"):
        words = row | {"Who": row["who"][0].upper() + row["who"][1:]}
        yield [(asked.format(**words), said.format(**words)) for asked, said in VERB]


def sums() -> Iterator[list[Pair]]:
    """Small sums in words, each with its way; no sum is there twice."""
    rng, seen = random.Random("sums"), set[str]()
    for kind in (_price, _change, _share, _unit):
        found = 0
        while found < SUMS:
            asked, said = kind(rng)
            if asked not in seen:
                seen.add(asked)
                found += 1
                yield [(asked, said)]


def _price(rng: random.Random) -> Pair:
    thing, price, count = rng.choice(GOODS), rng.randint(2, 12), rng.randint(2, 9)
    return (
        f"One {thing} costs {price} coins. What do {count} of them cost?",
        f"{count} times {price} is {count * price}, so they cost {count * price} coins.",
    )


def _change(rng: random.Random) -> Pair:
    name, thing = rng.choice(NAMES), rng.choice(GOODS)
    paid, price = rng.randint(10, 50), rng.randint(2, 9)
    return (
        f"{name} has {paid} coins and buys a{_article(thing)[1:]} {thing} for {price}. "
        "How many coins are left?",
        f"{paid} less {price} is {paid - price}, so {name} has {paid - price} coins left.",
    )


def _share(rng: random.Random) -> Pair:
    people, each, thing = rng.randint(2, 8), rng.randint(2, 12), rng.choice(GOODS)
    return (
        f"{people} friends share {people * each} {thing}s. How many does each of them get?",
        f"{people * each} divided by {people} is {each}, so each of them gets {each} {thing}s.",
    )


def _unit(rng: random.Random) -> Pair:
    (large, small, size), count = rng.choice(UNITS), rng.randint(2, 40)
    return (
        f"How many {small} are {count} {large}s?",
        f"One {large} has {size:,} {small}, so {count} {large}s are {count * size:,} {small}.",
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


CLIENTS: dict[str, Callable[[], Iterator[list[Pair]]]] = {
    "animals": animals,
    "countries": countries,
    "sums": sums,
    "verbs": verbs,
}


def splits(client: str) -> dict[str, list[Pair]]:
    """A client's questions and answers by split, after a seeded shuffle of what they are about."""
    rng, subjects = random.Random(client), list(CLIENTS[client]())
    rng.shuffle(subjects)
    held = len(subjects) // HELD_OUT
    cuts = {"train": subjects[2 * held :], "valid": subjects[:held], "test": subjects[held:][:held]}
    found = {}
    for split, kept in cuts.items():
        found[split] = [pair for pairs in kept for pair in pairs]
        rng.shuffle(found[split])
    return found


def write(folder: Path) -> None:
    """Write the federation into `folder`/skills."""
    for client in CLIENTS:
        home = folder / NAME / client
        home.mkdir(parents=True, exist_ok=True)
        for split, pairs in splits(client).items():
            lines = (_line(*pair) for pair in pairs)
            (home / f"{split}.jsonl.xz").write_bytes(lzma.compress("".join(lines).encode()))


def _line(asked: str, said: str) -> str:
    turns = ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of federations")
    write(parser.parse_args().out)
