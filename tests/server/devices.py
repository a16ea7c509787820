"""Devices behind a SuperLink that is this process: they answer with the ClientApp."""

from types import SimpleNamespace

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from comigs_clients.app import app
from comigs_server.grids.backlog import Backlog
from comigs_server.grids.client import RUN_ID, run_client


class Devices(Grid):
    """Nodes that are there; what a test adds is how messages get to them and back."""

    def __init__(self):
        self.nodes, self.backlog = {}, Backlog()
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 0

    def come(self, node, client, state):
        """Let a device come, with a state folder of its own."""
        config = {"partition-id": client, "state-dir": str(state)}
        self.nodes[node] = Context(RUN_ID, node, config, RecordDict(), {})

    def answer(self, message):
        return run_client(app, message, self.nodes[message.metadata.dst_node_id])

    def get_node_ids(self):
        return list(self.nodes)

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, last_activated_at="") for node in self.nodes]

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError
