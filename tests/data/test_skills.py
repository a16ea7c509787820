"""The bundled chats: made by their recipe, short, and nothing is asked about in two splits."""

from itertools import combinations

import pytest

from comigs.config.load import load_config
from comigs.data.corpus import client_names
from comigs.data.examples import chats_of, left_out
from comigs.data.names import SPLITS
from comigs.data.tokens import counts
from experiments.recipes.bundle_chats import CLIENTS, splits, table

CONFIG = load_config("skills")


def pairs(client, split):
    found = [chat for _, chat in chats_of("skills", client, split)]
    assert all([turn.role for turn in chat] == ["user", "assistant"] for chat in found)
    return [(asked.content, said.content) for asked, said in found]


@pytest.mark.parametrize("client", CLIENTS)
def test_they_are_what_the_recipe_makes(client):
    assert {split: pairs(client, split) for split in SPLITS} == splits(client)


def test_every_question_is_there_once():
    asked = [q for client in CLIENTS for split in SPLITS for q, _ in pairs(client, split)]
    assert len(set(asked)) == len(asked) > 1000
    assert client_names("skills") == tuple(CLIENTS)


@pytest.mark.parametrize(("client", "column"), [("animals", "name"), ("countries", "capital")])
def test_the_test_asks_about_nothing_that_was_trained_on(client, column):
    names = {row[column] for row in table(client)}
    about = {
        split: {n for n in names for _, said in pairs(client, split) if f" {n} " in f" {said} "}
        for split in SPLITS
    }
    for one, two in combinations(SPLITS, 2):
        assert not about[one] & about[two]


def test_nothing_is_cut_and_there_is_room_for_little_more():
    found = [counts(CONFIG, number) for number in range(len(CLIENTS))]
    assert all(left_out(each, CONFIG.data.seq_len) == "" for each in found)
