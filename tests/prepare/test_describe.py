"""What a federation's folder holds, worked out by hand."""

import math

import pytest

from comigs.backbone.base import load_tokenizer
from comigs.errors import BadInput
from comigs.prepare.describe import describe, divergence


@pytest.fixture
def folder(tmp_path):
    """Two clients whose examples are blocks, and one file of lines."""
    wanted = {
        "ana": ("red red\n\nblue\n\nblue\n", "blue\n\nred\nred\n", "sky\n"),
        "bo": ("sky\n\ngreen\n", "moon\n", "sea\n"),
    }
    for client, splits in wanted.items():
        (tmp_path / client).mkdir()
        for split, text in zip(("train", "valid", "test"), splits, strict=True):
            (tmp_path / client / f"{split}.txt").write_text(text)
    (tmp_path / "cy.txt").write_text("".join(f"line {i % 9}\n" for i in range(10)))
    return tmp_path


def described(folder):
    return describe(str(folder), "comigs-tiny", lambda *_: None)


def test_splits_are_counted(folder):
    facts = {(row.client, row.split): row for row in described(folder).splits}
    assert len(facts) == 9
    parts = {place: (row.parts, row.own, row.others) for place, row in facts.items()}
    assert parts["ana", "train"] == (3, 1, 0)  # blue is in valid, too
    assert parts["ana", "valid"] == (2, 1, 0)
    assert parts["ana", "test"] == (1, 0, 1)  # sky is bo's, too
    assert parts["bo", "train"] == (2, 0, 1)
    assert parts["cy", "train"] == (8, 1, 0)  # the tenth line is the first again
    assert parts["cy", "test"] == (1, 1, 0)
    tokens = len(load_tokenizer("comigs-tiny")("sky\n")["input_ids"])
    assert (facts["ana", "test"].characters, facts["ana", "test"].tokens) == (4, tokens)


def test_divergence_of_words(folder):
    matrix = described(folder).divergence
    assert [row[i] for i, row in enumerate(matrix)] == [0, 0, 0]
    assert matrix[0][1] == matrix[1][0] == 1  # red and blue; sky and green
    half = divergence({"a": 1}, {"a": 1, "b": 1})  # of (1, 0), (1/2, 1/2) and (3/4, 1/4)
    assert half == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * math.log2(4) - 0.5)
    assert divergence({"a": 2, "b": 4}, {"a": 1, "b": 2}) == 0
    assert divergence({}, {}) == 0 and divergence({}, {"a": 1}) == 1


def test_only_twelve_are_compared(tmp_path):
    for i in range(13):
        (tmp_path / f"c{i}.txt").write_text("".join(f"word{i} {j}\n" for j in range(12)))
    found = described(tmp_path)
    assert len(found.clients) == 13 and len(found.divergence) == 12


def test_what_is_no_federation(tmp_path):
    with pytest.raises(BadInput, match="holds no text"):
        described(tmp_path)
