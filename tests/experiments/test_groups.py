"""Hidden groups: the recipe hides them, the program finds what CoBo's weights say of them."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.data.corpus import read_split
from experiments.benchmarks import groups
from experiments.benchmarks.groups import adjusted_rand, linked, weights_of
from experiments.recipes.groups import truth_of, write

pytest_plugins = ("tests.fixtures",)
LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 1, 1], [5, 5, 2, 2], 1.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),  # (0 - 2/3) / (2 - 2/3)
        ([0, 0, 1, 2], [0, 0, 1, 1], 4 / 7),  # (1 - 1/3) / (3/2 - 1/3)
        ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
        ([0, 0, 0], [1, 1, 1], 1.0),
    ],
)
def test_the_index_has_the_values_worked_out_by_hand(a, b, expected):
    assert adjusted_rand(a, b) == pytest.approx(expected)


@given(LABELS)
def test_the_index_is_symmetric_blind_to_names_and_at_most_1(pairs):
    a, b = zip(*pairs, strict=True)
    index = adjusted_rand(a, b)
    assert index == pytest.approx(adjusted_rand(b, a)) and index <= 1
    assert index == pytest.approx(adjusted_rand([7 - label for label in a], b))


def test_who_is_linked_by_weights_that_have_risen_is_one_group():
    weights = {(0, 2): 0.6, (2, 4): 0.51, (1, 3): 0.5, (0, 1): 0.1}
    assert linked(weights, 5) == [0, 1, 0, 3, 0]
    assert linked({}, 3) == [0, 1, 2]


@pytest.fixture(scope="module")
def hidden(federation, tmp_path_factory):
    """A federation of six clients in three groups, and who is in which."""
    folder = tmp_path_factory.mktemp("hidden") / "groups"
    return folder, write(str(federation), folder, seed=0)


def test_names_do_not_tell_groups_and_no_text_is_lost(federation, hidden):
    folder, of_client = hidden
    assert sorted(of_client) == [0, 0, 1, 1, 2, 2]
    assert of_client != sorted(of_client)
    assert json.loads(truth_of(folder).read_text()) == of_client
    assert sorted(path.name for path in folder.iterdir()) == list("012345")
    for group, name in enumerate(("ana", "bo", "cy")):
        halves = {
            read_split(str(folder), str(i), "train") for i in range(6) if of_client[i] == group
        }
        whole = read_split(str(federation), name, "train")
        assert len(halves) == 2 and {a + b for a in halves for b in halves if a != b} & {whole}
    assert write(str(federation), folder, seed=0) == of_client


def test_the_program_compares_what_a_run_has_learnt(tree, hidden, tmp_path, monkeypatch, capsys):
    folder, of_client = hidden
    data = tree["data"] | {"name": str(folder), "seq_len": 8}
    more = {"data": data, "method": "cobo", "experts": {"rank": 2}, "rounds": 3}
    run = comigs.run(tree | more, out=tmp_path / "run").folder
    weights = weights_of(run, 6)
    assert weights and all(i < j for i, j in weights)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["groups", str(run), "--out", str(out)])
    groups.main()
    [told] = json.loads(out.read_text())["runs"].values()
    assert told["hidden"] == of_client and told["groups"] == linked(weights, 6)
    assert told["adjusted_rand"] == pytest.approx(adjusted_rand(told["groups"], of_client))
    assert "adjusted Rand" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["comigs", "cobo"])
def test_a_run_without_hidden_groups_is_refused(method, tmp_path):
    (tmp_path / "config.yaml").write_text(f"method: {method}\n", encoding="utf-8")
    with pytest.raises(comigs.BadInput, match="no run of cobo"):
        groups.found(tmp_path)
