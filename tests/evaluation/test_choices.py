"""Mutual information of a table by hand, and the classes of tokens."""

import math

import pytest
import torch

from comigs.evaluation.choices import CLASSES, mutual_information, pair_counts, token_class


@pytest.mark.parametrize(
    ("counts", "bits"),
    [
        ([[5, 0], [0, 5]], 1.0),  # the one tells the other
        ([[2, 6], [1, 3]], 0.0),  # rows in proportion
        ([[3, 1], [1, 3]], 1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)),
        ([[4, 0, 0], [0, 2, 2]], 1.0),  # which of the last two says nothing
        ([[7, 0], [0, 0]], 0.0),
    ],
)
def test_bits_of_a_table_by_hand(counts, bits):
    assert mutual_information(torch.tensor(counts)) == pytest.approx(bits, abs=1e-12)


def test_pairs_are_counted_in_their_place():
    first, second = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([2, 2, 0, 1, 0])
    assert pair_counts(first, second, (2, 3)).tolist() == [[0, 0, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        (" the", "word"),
        ("ing", "rest of a word"),
        (" 12", "number"),
        ("7", "number"),
        (",", "mark"),
        ("\n", "mark"),
        ("", "mark"),
        (" né", "word"),
    ],
)
def test_classes_of_tokens(piece, name):
    assert CLASSES[token_class(piece)] == name
