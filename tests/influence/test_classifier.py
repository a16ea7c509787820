"""The classifier of n-grams: what it reads of a window, and what it finds."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.config.load import load_config
from comigs.data.windows import FILLING, packed
from comigs.federation.clients import data_of
from comigs.influence.blocks import blocks_of
from comigs.influence.classifier import features, likeness
from comigs.influence.selection import best, choose
from tests.helpers import client_of

pytest_plugins = ("tests.fixtures",)


def test_features_are_tokens_and_pairs_and_nothing_of_filling():
    rows = torch.tensor([[3, 5, 3, 5, 9]])  # the last is only predicted
    [found] = features(rows)
    assert len(found) == 4 + 3 and len(set(found.tolist())) == 2 + 2  # 3 5, and 3-5 5-3
    [chat] = features(packed([torch.tensor([-1 - 3 - (1 << 32), 5, 3])], 5))
    assert (chat >= 0).tolist() == [True, True, True, False, True, True, False]
    assert chat[:2].tolist() == found[:2].tolist() and FILLING not in chat


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_text_in_the_wrong_order_or_of_other_words_is_ranked_last(seed):
    """Good text goes 0, 1, 2, ... from anywhere; the bad is shuffled, or of other words."""
    rng = torch.Generator().manual_seed(seed)

    def text(count, first=0):
        starts = torch.randint(50, (count, 1), generator=rng)
        return first + (starts + torch.arange(33)) % 50

    good, other = text(40), text(8, 1000)
    shuffled = torch.stack([row[torch.randperm(33, generator=rng)] for row in text(8)])
    scores = likeness(torch.cat([good, shuffled, other]), text(20))
    assert scores[:40].mean() + 0.2 < scores[40:48].mean() < scores[48:].min()


def test_a_single_block_is_judged_too():
    assert likeness(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]])).shape == (1,)


def test_a_client_chooses_by_it_without_a_model(tree):
    client = client_of(load_config(tree, ["data.select=classifier", "data.select.keep=0.3"]))
    data = data_of(client)
    scores = likeness(blocks_of(data.train, 16), blocks_of(data.valid, 16))
    assert torch.equal(choose(client, None, data, 0)["blocks"], best(scores, 0.3))
