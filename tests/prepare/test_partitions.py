"""Every kind of partition, with what it must give, worked out by hand; names of clients; splits."""

from collections import Counter
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from comigs.errors import BadInput
from comigs.prepare.examples import Texts, collect, first_ones
from comigs.prepare.lines import Row
from comigs.prepare.names import legal_names
from comigs.prepare.partitions import Part, partition
from comigs.prepare.settings import Settings, columns_of
from comigs.prepare.splitting import large_enough, split
from tests.prepare.made import numbered


@pytest.fixture
def shared(tmp_path):
    """Partitions rows; returns the labels of each client's examples, all of them checked."""

    def share(rows, **settings):
        chosen = Settings(**settings)
        chosen.check()
        found = (Row(f"row {i}", row) for i, row in enumerate(rows))
        with closing(Texts(tmp_path / "texts")) as kept:
            examples = collect(found, chosen, kept, tmp_path, lambda: None)
            parts = partition(examples, chosen)
            texts = {part.name: [_text(examples, row) for row in part.rows] for part in parts}
        label = {row["text"]: row.get(chosen.label or chosen.by, "") for row in rows}
        together = [text for own in texts.values() for text in own]
        assert len(set(together)) == len(together), "an example that two clients have"
        return {name: Counter(label[text] for text in own) for name, own in texts.items()}

    return share


def _text(examples, row):
    return examples.texts[examples.kept[row]].decode()


def sizes(shares):
    return [sum(share.values()) for share in shares.values()]


def test_natural_ids_in_the_order_in_which_people_count(shared):
    shares = shared(numbered(10, user=["u10", "u9", "u9", 7]), by="user")
    assert list(shares.items()) == [("7", {7: 2}), ("u9", {"u9": 5}), ("u10", {"u10": 3})]


def test_iid_is_equal_shares_of_shuffled_examples(shared, tmp_path):
    shares = shared(numbered(100, label="ab"), clients=3, label="label")
    assert list(shares) == ["client_0", "client_1", "client_2"]
    assert sizes(shares) == [34, 33, 33]
    assert all(5 < count < 29 for share in shares.values() for count in share.values())


@pytest.mark.parametrize(
    ("kind", "rows", "expected"),
    [
        ("linear", 12, [2, 4, 6]),  # 1, 2, 3 sixths
        ("square", 28, [2, 8, 18]),  # 1, 4, 9 fourteenths
        ("exponential", 100, [9, 24, 67]),  # 9.003, 24.47, 66.52; the last has what is left
    ],
)
def test_unequal_sizes(shared, kind, rows, expected):
    assert sizes(shared(numbered(rows), clients=3, partition=kind)) == expected


def test_pathological_gives_each_client_the_next_labels(shared):
    rows = numbered(12, label="abc")  # four of each
    shares = shared(rows, clients=3, partition="pathological", label="label")
    assert list(shares.values()) == [{"a": 2, "b": 2}, {"b": 2, "c": 2}, {"a": 2, "c": 2}]
    one = shared(rows, clients=3, partition="pathological", label="label", per_client=1)
    assert list(one.values()) == [{"a": 4}, {"b": 4}, {"c": 4}]


def test_shards_of_examples_sorted_by_label(shared):
    rows = numbered(12, label="aab")  # a, eight times; b, four times; shards aaaa, aaaa, bbbb
    shares = shared(rows, clients=3, partition="shards", label="label", per_client=1)
    assert sorted(map(dict, shares.values()), key=str) == [{"a": 4}, {"a": 4}, {"b": 4}]
    twice = shared(rows, clients=3, partition="shards", label="label")
    assert sizes(twice) == [4, 4, 4]


def test_dirichlet_has_the_proportions_that_were_drawn(shared):
    rows = numbered(200, label="aaab")  # 150 and 50
    options = {"clients": 3, "partition": "dirichlet", "label": "label", "alpha": 1.5, "seed": 5}
    shares = shared(rows, **options)
    rng, expected = np.random.default_rng(5), []
    for label, count in (("a", 150), ("b", 50)):
        ends = [0, *(int(end * count) for end in np.cumsum(rng.dirichlet([1.5] * 3))[:-1]), count]
        expected.append({label: [end - begin for begin, end in pairwise(ends)]})
    assert [shares[f"client_{i}"]["a"] for i in range(3)] == expected[0]["a"]
    assert [shares[f"client_{i}"]["b"] for i in range(3)] == expected[1]["b"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--by COLUMN makes one of each value, --clients N"),
        ({"by": "user", "clients": 3}, "--by user makes one client of each"),
        ({"clients": 0}, "--clients is 0; it must be at least 1"),
        ({"clients": 2, "partition": "dirichle"}, "did you mean dirichlet?"),
        ({"clients": 2, "partition": "dirichlet", "alpha": 1.0}, "needs --label COLUMN"),
        ({"clients": 2, "partition": "dirichlet", "label": "label"}, "needs --alpha"),
        ({"clients": 2, "alpha": 0.5}, "--alpha is 0.5; only --partition dirichlet"),
        ({"clients": 2, "per_client": 1}, "--per-client is 1; only"),
        ({"clients": 2, "min_examples": 2}, "--min-examples is 2; it must be at least 3"),
        ({"clients": 2, "seed": -1}, "--seed is -1"),
        (
            {"clients": 2, "partition": "dirichlet", "label": "label", "alpha": 0.0},
            "--alpha is 0; it must be a number above 0",
        ),
        ({"clients": 13}, "--clients is 13; there are 12 examples"),
        (
            {"clients": 2, "partition": "pathological", "label": "label", "per_client": 4},
            "--per-client is 4; column 'label' has 3 labels",
        ),
        (
            {"clients": 12, "partition": "pathological", "label": "label"},
            "try fewer --clients or another --per-client",
        ),
        (
            {"clients": 6, "partition": "dirichlet", "label": "label", "alpha": 0.01},
            "try a larger --alpha, fewer --clients, or --min-examples",
        ),
        ({"clients": 6, "partition": "exponential"}, "try fewer --clients"),
        ({"by": "usr"}, "--by is 'usr'; there is no such column: there are text, label"),
        ({"clients": 2, "label": "lable"}, "did you mean label?"),
    ],
)
def test_what_is_not_possible_is_told_with_what_is(shared, settings, words):
    with pytest.raises(BadInput) as error:
        shared(numbered(12, label="abc"), **settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=a", "text=a,text=b", ""])
def test_columns_that_cannot_be_read(text):
    with pytest.raises(BadInput, match="--columns is"):
        columns_of(text)


def test_columns():
    assert columns_of("prompt=question, completion = answer") == {
        "prompt": "question",
        "completion": "answer",
    }


def test_names_are_legal_everywhere_and_all_different():
    ids = [
        "Ann Lee",
        ".hidden",
        "../etc",
        "con",
        "clients.json",
        "Zoë",
        "a/b",
        "a b",
        "A_B",
        "x" * 99,
    ]
    names = legal_names(ids)
    assert names[:6] == ["Ann_Lee", "hidden", "_etc", "con_", "clients.json_", "Zoë"]
    assert [name.rpartition("-")[0] for name in names[6:9]] == ["a_b", "a_b", "A_B"]
    assert len({name.casefold() for name in names}) == len(ids)
    assert names[9] == "x" * 60
    assert legal_names(["", "..."]) != legal_names(["...", ""])


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, (1, 1, 1)), (10, (8, 1, 1)), (25, (21, 2, 2)), (100, (80, 10, 10))],
)
def test_splits_are_80_10_10_of_shuffled_examples(count, expected):
    client = split(Part("ana", np.arange(count)), 3)
    assert tuple(client.examples.values()) == expected
    assert list(client.examples) == ["train", "valid", "test"]
    rows = np.concatenate(list(client.splits.values())).tolist()
    assert sorted(rows) == list(range(count))
    assert count < 10 or rows != sorted(rows)


def test_clients_that_are_too_small():
    parts = [Part(name, range(size)) for name, size in (("ana", 2), ("bo", 5), ("cy", 1))]
    with pytest.raises(BadInput, match=r"'ana' has 2 examples; .* \(1 more are as small\)"):
        large_enough(parts, Settings())
    assert large_enough(parts, Settings(min_examples=5)) == parts[1:2]
    with pytest.raises(BadInput, match="--min-examples is 6; no client has so many, the largest"):
        large_enough(parts, Settings(min_examples=6))


def test_of_equal_digests_the_first_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("comigs.prepare.examples.AT_ONCE", 7)  # several groups
    rng = np.random.default_rng(1)
    digests = [bytes(rng.integers(0, 256, 16, dtype=np.uint8)) for _ in range(40)]
    digests += [bytes(15) + b"\1", bytes(16), b"\1" + bytes(15)]  # ends of zeros count
    drawn = [digests[i] for i in rng.integers(0, len(digests), 200)]
    (tmp_path / "digests").write_bytes(b"".join(drawn))
    expected = [i for i, one in enumerate(drawn) if one not in drawn[:i]]
    assert first_ones(tmp_path / "digests", 200).tolist() == expected
