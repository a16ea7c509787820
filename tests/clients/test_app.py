"""The ClientApp: what it says, that a repeated order changes nothing, and how it refuses."""

import json

import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from comigs.config.load import load_config
from comigs.federation.run import resolve
from comigs.store.state import saved_rounds
from comigs_clients.app import app
from comigs_server.fleet.records import order_record
from comigs_server.grids.inline import InlineGrid

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def config(tree):
    return load_config(tree)


@pytest.fixture
def grid(tmp_path):
    with InlineGrid(app, 3, str(tmp_path)) as grid:
        yield grid


def ask(grid, config, kind, client, arrays=None, **numbers):
    """The reply of one client to one message."""
    record = order_record(resolve(config))
    record.update({key.replace("_", "-"): value for key, value in numbers.items()})
    content = RecordDict({"config": record, "arrays": arrays or ArrayRecord()})
    [reply] = grid.send_and_receive([Message(content, client + 1, kind)])
    return reply


def train(grid, config, client, number, arrays=None):
    numbers = {"server_round": number, "state_round": number - 1}
    return ask(grid, config, "train", client, arrays, **numbers)


def hello(grid, config, client):
    reply = ask(grid, config, "query", client)
    return json.loads(reply.content.config_records["hello"]["json"])


def values(reply):
    return {name: array.data for name, array in reply.content.array_records["arrays"].items()}


def test_a_client_says_who_it_is_and_what_it_would_share(grid, config):
    for client, name in enumerate(("ana", "bo", "cy")):
        about = hello(grid, config, client)
        assert (about["client"], about["name"], about["rounds"]) == (client, name, [])
        assert about["shapes"]
        assert all(".generalist_0." in tensor for tensor in about["shapes"])


def test_a_client_says_which_rounds_it_holds(grid, config, tmp_path):
    train(grid, config, 1, 1)
    train(grid, config, 1, 2)
    assert hello(grid, config, 1)["rounds"] == [1, 2]
    assert hello(grid, config, 0)["rounds"] == []
    (tmp_path / "clients/1/round_00002/tensors.safetensors").write_bytes(b"")
    assert hello(grid, config, 1)["rounds"] == [1]


def test_a_reply_holds_the_shared_arrays_and_metrics_only(grid, config):
    reply = train(grid, config, 2, 1)
    assert sorted(reply.content) == ["arrays", "metrics"]
    assert sorted(values(reply)) == sorted(hello(grid, config, 2)["shapes"])
    metrics = reply.content.metric_records["metrics"]
    assert metrics["steps"] == 2
    assert metrics["tokens"] == 2 * 2 * 16
    assert metrics["num-examples"] > 0


def test_a_repeated_order_gives_the_same_reply_and_the_same_state(grid, config, tmp_path):
    first = train(grid, config, 1, 1)
    second = train(grid, config, 1, 2, first.content.array_records["arrays"])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    train(grid, config, 0, 1)  # another client uses the same process in between
    again = train(grid, config, 1, 2, first.content.array_records["arrays"])
    assert values(again) == values(second) != values(first)
    assert {p: p.read_bytes() for p in before} == before


def test_a_client_keeps_to_its_own_folder(grid, config, tmp_path):
    train(grid, config, 1, 1)
    assert [p.name for p in (tmp_path / "clients").iterdir()] == ["1"]
    assert saved_rounds(tmp_path / "clients/1") == [1]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"server_round": 5, "state_round": 4}, "round_00004 is damaged (FileNotFoundError)"),
        ({"server_round": "5", "state_round": 0}, "server-round = '5', not a number"),
        ({"server_round": 1}, "state-round"),
    ],
)
def test_an_order_that_cannot_be_followed_is_an_error_reply(
    grid, config, tmp_path, numbers, reason
):
    reply = ask(grid, config, "train", 0, **numbers)
    assert reply.has_error()
    assert reason in reply.error.reason
    assert not (tmp_path / "clients").exists()


def test_a_device_puts_nothing_of_its_environment_into_a_configuration(grid, config, monkeypatch):
    monkeypatch.setenv("PASSWORD", "swordfish")
    record = order_record(resolve(config))
    record["config"] = str(record["config"]).replace(config.name, "${oc.env:PASSWORD}", 1)
    message = Message(RecordDict({"config": record, "arrays": ArrayRecord()}), 1, "query")
    [reply] = grid.send_and_receive([message])
    assert "does not fill it in" in reply.error.reason
    assert "swordfish" not in reply.error.reason


def test_tensors_that_do_not_fit_are_an_error_reply(grid, config, tmp_path):
    first = train(grid, config, 0, 1)
    arrays = first.content.array_records["arrays"]
    name = min(arrays)
    stranger = ArrayRecord({f"{name}.more": arrays[name]})
    reply = train(grid, config, 0, 2, stranger)
    assert f"tensor '{name}.more' does not exist in this client's model" in reply.error.reason
    assert saved_rounds(tmp_path / "clients/0") == [1]
