"""The round loop: who takes part, who carries on from where."""

import pytest

import comigs
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)


def test_the_same_seed_gives_the_same_numbers(tree, finished, tmp_path):
    assert_same_numbers(comigs.run(tree, out=tmp_path).folder, finished)
