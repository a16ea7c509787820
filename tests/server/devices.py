"""Devices behind a SuperLink that is this process: they answer with the ClientApp."""

from types import SimpleNamespace

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from comigs.config.load import load_config, write_config
from comigs.federation.run import resolve
from comigs_clients.app import app
from comigs_server.grids.backlog import Backlog
from comigs_server.grids.client import RUN_ID, run_client
from comigs_server.journal import Journal
from comigs_server.loop import run_rounds
from tests.helpers import events

HANGS, DIES = "hangs", "dies"


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


class InOrder(Devices):
    """Three nodes, 11 to 13. They work at once, and those asked for come in the order of `order`.

    Args:
        order: client ids; when it is through, whoever began first is next.
        faults: by (client, how often it was asked to train), HANGS or DIES.
    """

    def __init__(self, folder, order=(), faults=None):
        super().__init__()
        self.order, self.faults = list(order), faults or {}
        self.asked, self.waiting, self.told = [], {}, []
        for i in range(3):
            self.come(11 + i, i, folder / str(i))

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def _push(self, message):
        key, client = self.backlog.number(message), message.metadata.dst_node_id - 11
        if message.metadata.message_type == "train":
            config = message.content.config_records["config"]
            self.asked.append((client, config["server-round"], config["state-round"]))
        self.waiting[key] = message
        return key

    def pull_messages(self, message_ids):
        """Who comes next, one at a time; all but training is answered at once."""
        here = {k: self.waiting[k] for k in message_ids if k in self.waiting}
        quick = [k for k, m in here.items() if m.metadata.message_type != "train"]
        coming = quick or self._next(here)
        return [reply for key in coming if (reply := self._answer(self.waiting.pop(key)))]

    def _next(self, here):
        if not here:
            return []
        by_client = {m.metadata.dst_node_id - 11: key for key, m in here.items()}
        client = (
            self.order.pop(0) if self.order else min(by_client, key=lambda i: int(by_client[i]))
        )
        return [by_client[client]]

    def _answer(self, message):
        client = message.metadata.dst_node_id - 11
        if message.metadata.message_type == "train":
            times = sum(who == client for who, *_ in self.asked)
            fault = self.faults.get((client, times))
            if fault == HANGS:
                return None
            if fault == DIES:
                error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "x")
                return Message(error, reply_to=message)
        return self.answer(message)


def run_behind(link, settings, folder, watch=lambda event: None):
    """Run a federation, or go on with it, with `link` as its SuperLink."""
    run = resolve(load_config(settings))
    folder.mkdir(exist_ok=True)
    write_config(run.config, folder)
    run_rounds(link, run, folder, Journal(folder, watch))


def arrived(folder):
    """Whose updates a run of overlapping rounds took in: round, client, round in which it began."""
    return [(e["round"], e["client"], e["since"]) for e in events(folder, "arrived")]
