"""A device behind a SuperLink, asked directly, for tests of what it refuses."""

import json

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from comigs.config.load import load_config, to_dict
from comigs.errors import ComigsError
from comigs_clients.app import app

NODE = 7
SECRET = "swordfish-of-the-device"


class Device:
    """Client 1 of the tests' federation, with a policy that allows its text and model.

    Attributes:
        tree: its configuration as the server sends it; `ask` changes single settings.
    """

    def __init__(self, folder, tree):
        self.folder, self.state = folder, folder / "state"
        self.node = {"partition-id": 1, "state-dir": str(self.state)}
        self.node["policy"] = str(folder / "device.yaml")
        self.write_policy(data=[tree["data"]["name"]], models=[tree["model"]["name"]])
        self.tree = to_dict(load_config(tree | {"flower": {"run": "a"}}))

    def write_policy(self, **settings):
        (self.folder / "device.yaml").write_text(json.dumps(settings))

    def ask(self, kind="train", arrays=None, text=None, records=None, settings=(), **numbers):
        """The reply to one message; `settings` are (dotted key, value), `text` a whole config."""
        tree = json.loads(json.dumps(self.tree))
        for key, value in dict(settings).items():
            *sections, last = key.split(".")
            place = tree
            for section in sections:
                place = place[section]
            place[last] = value
        record = {"config": json.dumps(tree) if text is None else text}
        record |= {key.replace("_", "-"): value for key, value in numbers.items()}
        content = {"config": ConfigRecord(record), "arrays": arrays or ArrayRecord()}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
        message = Message(RecordDict(content | (records or {})), NODE, kind)
        return app(message, Context(1, NODE, self.node, RecordDict(), {}))

    def train(self, number, state=0, **more):
        return self.ask(server_round=number, state_round=state, **more)

    def files(self):
        """Everything under the device's folder, by path."""
        found = self.folder.rglob("*")
        return {p: p.read_bytes() for p in found if p.is_file() and not p.is_symlink()}


def refused(device, code, *arguments, **numbers):
    """The device refuses with this code and says nothing else; nothing of its own changes."""
    before = device.files()
    with pytest.raises(ComigsError) as caught:
        device.ask(*arguments, **numbers)
    assert str(caught.value) == f"refused ({code})"
    assert caught.value.__cause__ is None
    after = device.files()
    assert {path: after.get(path) for path in before} == before
    return set(after) - set(before)
