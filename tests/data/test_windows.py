"""Marks of tokens, worked out by hand, and rows of several examples, in every family."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.data.windows import (
    FILLING,
    IGNORED,
    is_marked,
    marked,
    packed,
    predicted,
    read_marks,
    real,
)
from comigs.evaluation.perplexity import mean_losses, token_loss
from tests.backbone.test_families import CONFIGS, base_of


def example(tokens, learnt):
    return marked(torch.tensor(tokens), torch.tensor(learnt, dtype=torch.bool))


def test_plain_text_has_no_marks():
    windows = torch.arange(12).view(2, 6)
    batch = read_marks(windows)
    assert torch.equal(batch.ids, windows[:, :-1]) and torch.equal(batch.targets, windows[:, 1:])
    assert batch.positions is None and real(windows) is None and not is_marked(windows)


def test_a_row_of_two_examples_and_filling():
    row = packed([example([7, 8, 9], [0, 0, 1]), example([0, 5, 6, 4], [0, 1, 0, 1])], 9)
    assert row.shape == (1, 9) and is_marked(row)
    batch = read_marks(row)
    assert batch.ids.tolist() == [[7, 8, 9, 0, 5, 6, 4, 0]]
    no = IGNORED
    assert batch.targets.tolist() == [[no, 9, no, 5, no, 4, no, no]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert real(row).tolist() == [True] * 7 + [False]
    assert predicted(row) == 3


def test_the_first_token_is_never_predicted():
    assert predicted(packed([example([1, 2], [1, 1]), example([3], [1])], 4)) == 1


@given(st.lists(st.integers(2, 9), min_size=1, max_size=40))
@settings(max_examples=60)
def test_rows_hold_every_example_once_and_whole(lengths):
    examples = [example(list(range(100 * i, 100 * i + n)), [1] * n) for i, n in enumerate(lengths)]
    rows = packed(examples, 9)
    assert (rows[:, 0] < 0).all()
    found = []
    for row in rows:
        entries = row[row != FILLING]
        assert (row[: len(entries)] != FILLING).all()
        firsts = (entries < -(1 << 32)).nonzero().flatten()
        found += [each.tolist() for each in entries.tensor_split(firsts[1:])]
    assert sorted(found) == sorted(each.tolist() for each in examples)
    assert int(predicted(rows)) == sum(lengths) - len(lengths)


EXAMPLES = [
    ([5, 6, 7, 8], [0, 0, 1, 1]),
    ([5, 6, 7, 9, 3, 4], [0, 1, 0, 1, 1, 1]),
    ([9, 1, 2], [0, 0, 1]),
    ([4, 4, 4, 4, 4, 4, 4], [0, 0, 0, 1, 1, 0, 1]),
    ([11, 12], [0, 1]),
]


@pytest.mark.parametrize("family", CONFIGS)
def test_examples_in_one_row_are_as_each_alone(family):
    """Against Transformers' own loss of every example by itself, with labels of -100."""
    base = base_of(family)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.mul_(3)  # so that what stands before a token matters
    total, count = 0.0, 0
    for tokens, learnt in EXAMPLES:
        ids = torch.tensor([tokens])
        labels = ids.masked_fill(~torch.tensor([learnt]).bool(), -100)
        own = int((labels[:, 1:] >= 0).sum())
        with torch.no_grad():
            total += base(input_ids=ids, labels=labels).loss.item() * own
        count += own
    examples = [example(*each) for each in EXAMPLES]
    rows = packed(examples, 12)
    assert len(rows) == 2 and int(predicted(rows)) == count
    for windows in (rows, packed(examples, 30), torch.cat([packed([e], 9) for e in examples])):
        for chunked in (False, True):
            with torch.no_grad():
                loss = token_loss(base, windows, "sum", chunked).item()
                mean = token_loss(base, windows, "mean", chunked).item()
            assert loss == pytest.approx(total, rel=1e-5), chunked
            assert mean == pytest.approx(total / count, rel=1e-5)
    with torch.no_grad():
        each = mean_losses(base, rows[:, None])
        alone = [token_loss(base, row[None], "sum") / int(predicted(row[None])) for row in rows]
    assert each.tolist() == pytest.approx([float(loss) for loss in alone], rel=1e-5)
    joined = torch.where(rows < -(1 << 32), rows + (1 << 32), rows)  # one text each, not several
    joined[:, 0] = rows[:, 0]
    with torch.no_grad():
        assert token_loss(base, joined, "sum").item() != pytest.approx(total, rel=1e-3)
