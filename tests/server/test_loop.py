"""The round loop: the same seed, who takes part, and from where each client goes on."""

import shutil

import pytest

import comigs
import comigs.data.tokens
import comigs_clients.app
import comigs_server.checks.run
from comigs.config.load import load_config
from comigs.federation.run import resolve
from comigs.federation.selection import participants, takers_of_the_test
from comigs.store.state import read_state, saved_rounds
from tests.helpers import assert_same_numbers, events, numbers

pytest_plugins = ("tests.fixtures",)


def drawn(config, number, count=10):
    return participants(resolve(config), number, range(count))


def test_the_same_seed_gives_the_same_numbers(tree, finished, tmp_path):
    assert_same_numbers(comigs.run(tree, out=tmp_path).folder, finished)


@pytest.mark.slow
def test_another_seed_gives_other_numbers(tree, finished, tmp_path):
    other = numbers(comigs.run(tree, out=tmp_path, seed=8).folder)[0]
    same = [key for key, data in numbers(finished)[0].items() if other[key] == data]
    assert same == []


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, 10), (0.5, 5), (0.34, 3), (0.01, 1)], ids=str
)
def test_participants_are_drawn_from_the_seed_and_the_round(tree, share, expected):
    config = load_config(tree | {"participation": share})
    rounds = [drawn(config, number) for number in range(1, 30)]
    assert {len(ids) for ids in rounds} == {expected}
    assert all(ids == sorted(set(ids)) for ids in rounds)
    assert rounds == [drawn(config, number) for number in range(1, 30)]
    assert share < 0.1 or {i for ids in rounds for i in ids} == set(range(10))
    if share < 1:
        assert len(set(map(tuple, rounds))) > 1
        other = load_config(tree | {"participation": share, "seed": 8})
        assert rounds != [drawn(other, number) for number in range(1, 30)]


def test_a_client_that_skips_rounds_goes_on_from_its_own_last_state(tree, tmp_path, monkeypatch):
    calls = []
    train_round = comigs_clients.app.train_round

    def watched(order):
        calls.append((order.round, order.client.number, order.state_round))
        return train_round(order)

    monkeypatch.setattr(comigs_clients.app, "train_round", watched)
    tree = tree | {"participation": 0.5, "rounds": 6}
    folder = comigs.run(tree, out=tmp_path).folder
    config = load_config(tree)
    last, steps = {}, {}
    for number, client, state_round in calls:
        assert client in drawn(config, number, 3)
        assert state_round == last.get(client, 0)
        last[client], steps[client] = number, steps.get(client, 0) + 2
    assert len(calls) == 6 * 2
    assert any(state_round not in (0, number - 1) for number, _, state_round in calls)
    for client, number in last.items():
        root = folder / "clients" / str(client)
        assert saved_rounds(root)[-1] == number
        assert read_state(root, number)[1]["steps_done"] == steps[client]


def test_a_client_without_any_round_is_evaluated_with_the_shared_tensors(tree, tmp_path):
    """One client a round for one round: the others have no state, and get the result."""
    result = comigs.run(tree | {"participation": 0.01, "rounds": 1}, out=tmp_path)
    assert len(events(tmp_path, "client")) == 1
    assert [row["client"] for row in result.table] == [0, 1, 2]
    idle = [row for row in result.table if row["bytes_up"] == 0]
    assert len(idle) == 2
    for row in idle:
        assert row["bytes_down"] > 0
        result.client(row["client"]).model()


def test_clients_without_a_turn_are_neither_asked_nor_read(tree, tmp_path, monkeypatch):
    asked, read = [], []
    hello, read_split = comigs_clients.app.hello_reply, comigs.data.tokens.read_split
    tree = tree | {"participation": 0.01, "rounds": 1, "seed": 2}
    unread = shutil.copytree(tree["data"]["name"], tmp_path / "unread")
    tree["data"] = tree["data"] | {"name": str(unread), "test_clients": 1}
    monkeypatch.setattr(comigs_server.checks.run, "READ_AT_START", 1)

    def watched(data, client, split):
        read.append(client)
        return read_split(data, client, split)

    monkeypatch.setattr(comigs.data.tokens, "read_split", watched)
    monkeypatch.setattr(
        comigs_clients.app, "hello_reply", lambda *told: asked.append(None) or hello(*told)
    )
    result = comigs.run(tree, out=tmp_path / "run")
    config = load_config(tree)
    turns = {*drawn(config, 1, 3), *takers_of_the_test(resolve(config), range(3))}
    assert len(result.table) == 1
    assert len(asked) == len(turns) < 3
    assert set(read) == {"ana", *(("ana", "bo", "cy")[i] for i in turns)}
    assert len(set(read)) < 3, "choose a seed that leaves a client out"


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_one_client_averages_to_itself(tree, tmp_path, weighting):
    tree = tree | {"clients": 1, "experts": {"specialists": 1, "rank": 2}}
    folder = comigs.run(tree | {"server": {"weighting": weighting}}, out=tmp_path).folder
    shared = read_state(folder / "server", 3)[0]["shared"]
    own = read_state(folder / "clients/0", 3)[0]["tensors"]
    assert shared
    assert all((own[name] == tensor).all() for name, tensor in shared.items())


def test_the_table_of_pooled_training_has_every_text_but_there_is_one_client(tree, tmp_path):
    result = comigs.run(tree | {"method": "centralized"}, out=tmp_path)
    assert [row["name"] for row in result.table] == ["ana", "bo", "cy"]
    result.client(0).model()
    with pytest.raises(comigs.BadInput, match=r"there is no client '1'"):
        result.client(1)
