"""A deployed device: it needs its own text only, and keeps the state of each run apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from comigs.config.flower import FlowerConfig
from comigs.config.load import load_config
from comigs.data.corpus import client_names
from comigs.federation.run import resolve
from comigs.store.state import saved_rounds
from comigs.use.generate import generate_text
from comigs_clients.app import app
from comigs_server.fleet.records import order_record
from tests.fixtures import made_up_text

pytest_plugins = ("tests.fixtures",)
NODE = 7


@pytest.fixture
def device(tmp_path, tree):
    """Settings and node config of client 1 of 3, who has no text but its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bo.txt").write_text(made_up_text(1), encoding="utf-8")
    (tmp_path / "data" / "clients.json").write_text('["ana", "bo", "cy"]')
    (tmp_path / "data" / "device.yaml").write_text(f"models: [{tree['model']['name']}]")
    client_names.cache_clear()
    config = load_config(tree)
    config = replace(config, data=replace(config.data, name=str(tmp_path / "data")))
    return config, {"partition-id": 1, "state-dir": str(tmp_path / "state")}


def ask(device, kind, run, **numbers):
    """What the device answers in the run of this name."""
    config, node = device
    config = replace(config, flower=FlowerConfig(run=run))
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    context = Context(1, NODE, node, RecordDict(), {})
    record = order_record(resolve(config))
    record.update({key.replace("_", "-"): value for key, value in numbers.items()})
    content = RecordDict({"config": record, "arrays": ArrayRecord()})
    return app(Message(content, NODE, kind), context)


def rounds(device, run):
    return saved_rounds(Path(device[1]["state-dir"]) / run / "clients" / "1")


def test_a_device_trains_with_its_own_text_only(device):
    about = json.loads(ask(device, "query", "a").content.config_records["hello"]["json"])
    assert (about["client"], about["name"]) == (1, "bo")
    ask(device, "train", "a", server_round=1, state_round=0)
    assert rounds(device, "a") == [1]


def test_runs_do_not_touch_each_others_state(device):
    ask(device, "train", "a", server_round=1, state_round=0)
    ask(device, "train", "b", server_round=2, state_round=0)
    assert (rounds(device, "a"), rounds(device, "b")) == ([1], [2])


def test_a_device_can_use_its_model_by_itself(device, tmp_path):
    ask(device, "train", "a", server_round=1, state_round=0)
    ask(device, "evaluate", "a", server_round=1, state_round=1)
    text = generate_text(tmp_path / "state" / "a", 1, "mira tolu", 4, 0)
    assert text.startswith("mira tolu")
