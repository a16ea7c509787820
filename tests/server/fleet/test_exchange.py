"""Messages to clients."""

import torch
from flwr.app import ConfigRecord, Message, RecordDict

from comigs_server.fleet.exchange import Client, address, message_bytes, tensor_bytes
from comigs_server.grids.embedded import EmbeddedGrid


class Grid(EmbeddedGrid):
    def pull_messages(self, message_ids):
        return []


def test_clients_that_get_the_same_tensors_share_one_copy_of_them(tmp_path):
    Grid(3, str(tmp_path), None)  # sets the identities that a Message needs
    tensors = [{"a": torch.ones(2, 3), "b": torch.ones(4)}, {"a": torch.ones(2, 3)}]
    clients = [Client(i, i + 1, f"c{i}", frozenset(), {}) for i in range(3)]
    drafts = [
        Message(RecordDict({"config": ConfigRecord({})}), dst_node_id=c.node, message_type="train")
        for c in reversed(clients)
    ]
    share = {0: tensors[0], 1: tensors[1], 2: dict(tensors[0])}
    messages = address(drafts, clients, {1: 5}, lambda client: share[client.id])
    records = [m.content.array_records["arrays"] for m in messages]
    assert records[0] is records[2]
    assert [list(r) for r in records] == [["a", "b"], ["a"], ["a", "b"]]
    assert [m.content.config_records["config"]["state-round"] for m in messages] == [0, 5, 0]
    assert [message_bytes(m) for m in messages] == [tensor_bytes(share[i]) for i in range(3)]
