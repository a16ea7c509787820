"""Messages to clients."""

import torch

from comigs.config.settings import RunConfig
from comigs.federation.run import resolve
from comigs_server.fleet.exchange import Client
from comigs_server.fleet.records import bytes_of, tensor_messages
from comigs_server.grids.embedded import EmbeddedGrid


class Grid(EmbeddedGrid):
    def pull_messages(self, message_ids):
        return []


def test_clients_that_get_the_same_tensors_share_one_copy_of_them(tmp_path):
    Grid(3, str(tmp_path), None)  # sets the identities that a Message needs
    tensors = [{"a": torch.ones(2, 3), "b": torch.ones(4)}, {"a": torch.ones(2, 3)}]
    clients = [Client(i, i + 1, f"c{i}", frozenset(), {}) for i in range(3)]
    share = {0: tensors[0], 1: tensors[1], 2: dict(tensors[0])}
    messages = tensor_messages(
        "train",
        resolve(RunConfig()),
        reversed(clients),
        lambda client: share[client.id],
        lambda client: {"state-round": {1: 5}.get(client.id, 0)},
    )
    records = [m.content.array_records["arrays"] for m in messages]
    assert records[0] is records[2]
    assert [list(r) for r in records] == [["a", "b"], ["a"], ["a", "b"]]
    assert [m.content.config_records["config"]["state-round"] for m in messages] == [0, 5, 0]
    assert [bytes_of(m) for m in messages] == [40, 24, 40]
