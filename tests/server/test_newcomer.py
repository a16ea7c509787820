"""Behind a SuperLink: a device that comes while a run goes on takes part in the rounds that remain.

The SuperLink is this process; its nodes answer with the ClientApp as devices do.
"""

import shutil

import pytest
import torch

from comigs.app.join import join
from comigs.config.load import load_config, write_config
from comigs.federation.run import resolve
from comigs.store.metrics import events_of, final_rows
from comigs.store.state import state_root, write_state
from comigs_clients.payload import unpack
from comigs_clients.wire import unbundle
from comigs_server.combine.rule import make_rule
from comigs_server.evaluation import evaluate
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.resume import Progress
from comigs_server.round import train_round
from tests.fixtures import made_up_text
from tests.server.devices import Devices

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


class SuperLink(Devices):
    """Nodes that are there, each a device with a state folder of its own; keeps what travels."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.down, self.up = folder, [], []

    def come(self, node, client):
        super().come(node, client, self.folder / str(node))

    def push_messages(self, messages):
        self.replies = {}
        for message in messages:
            key = self.backlog.number(message)
            reply = self.answer(message)
            self.replies[key] = reply
            for way, sent in ((self.down, message), (self.up, reply)):
                arrays = sent.content.array_records.get("arrays") if sent.has_content() else None
                if arrays is not None:
                    way.append((message.metadata.dst_node_id, arrays))
        return list(self.replies)

    def pull_messages(self, message_ids):
        return [self.replies.pop(key) for key in list(message_ids) if key in self.replies]


def test_it_begins_with_the_shared_experts_of_the_moment_and_counts_from_then_on(
    tree, federation, tmp_path, capfd
):
    data = shutil.copytree(federation, tmp_path / "data")
    (data / "dee.txt").write_text(made_up_text(9))
    (data / "device.yaml").write_text(f"models: [{tree['model']['name']}]\n")
    settings = tree | {
        "rounds": 4,
        "data": tree["data"] | {"name": str(data)},
        "experts": {"rank": 2},
        "engine": "flower",
        "flower": {"run": "late"},
    }
    run = resolve(load_config(settings))
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(run.config, folder)
    link = SuperLink(tmp_path / "devices")
    for client in range(3):
        link.come(11 + client, client)
    clients, journal = Registry(link, run), Journal(folder)
    assert not clients.look()
    progress, rule = Progress(), make_rule(run, "")
    for number in range(1, 5):
        if number == 3:
            link.come(14, 3)
            shared = dict(progress.shared)
        link.up.clear()
        train_round(link, run, clients, progress, rule, journal)
        if number == 3:
            sent = {node: unpack(unbundle(arrays)) for node, arrays in link.up}
            made = dict(progress.shared)
    told = events_of(folder)
    assert [(e.round, e.name) for e in told if e.kind == "joined"] == [(3, "dee")]
    assert [e.round for e in told if e.kind == "client" and e.name == "dee"] == [3, 4]
    first = unpack(unbundle(next(arrays for node, arrays in link.down if node == 14)))
    assert first and first.keys() == shared.keys()
    assert all(torch.equal(first[name], shared[name]) for name in first)
    assert sorted(sent) == [11, 12, 13, 14]
    for name, tensor in made.items():
        mean = torch.stack([update[name] for update in sent.values()]).mean(0)
        torch.testing.assert_close(tensor, mean)
    state = state_root(tmp_path / "devices" / "14" / "late", 3)
    assert sorted(p.name for p in state.iterdir()) == ["round_00003", "round_00004"]

    write_state(folder / "server", 4, {"shared": progress.shared}, progress.meta(run.config))
    evaluate(link, run, clients, progress, journal)
    assert [row["name"] for row in final_rows(folder)] == ["ana", "bo", "cy", "dee"]
    assert "refused" not in capfd.readouterr().err

    late = tmp_path / "eli.txt"
    late.write_text(made_up_text(10))
    row = join(folder, late, tmp_path / "eli", ["rounds=1"])
    assert row.name == "eli" and row.joined != row.alone
