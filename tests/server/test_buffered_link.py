"""Buffered rounds behind a SuperLink: devices arrive in their own time.

The SuperLink is this process; its nodes answer with the ClientApp as devices do, and a test says
in which order.
"""

import shutil
from types import SimpleNamespace

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

import comigs
from comigs.config.load import load_config, write_config
from comigs.federation.run import resolve
from comigs_clients.app import app
from comigs_server.checks.run import check_without_data
from comigs_server.fleet import post
from comigs_server.grids.backlog import Backlog
from comigs_server.grids.client import RUN_ID, run_client
from comigs_server.journal import Journal
from comigs_server.loop import run_rounds
from tests.helpers import events, numbers
from tests.server.test_buffered import buffered

pytest_plugins = ("tests.fixtures",)
HANGS, DIES = "hangs", "dies"


class SuperLink(Grid):
    """Three nodes, 11 to 13. They work at once, and those asked for come in the order of `order`.

    Args:
        order: client ids; when it is through, whoever began first is next.
        faults: by (client, how often it was asked to train), HANGS or DIES.
    """

    def __init__(self, folder, order=(), faults=None):
        self.order, self.faults, self.backlog = list(order), faults or {}, Backlog()
        self.asked, self.waiting, self.most = [], {}, 0
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 0
        self.nodes = {11 + i: self._device(folder, i) for i in range(3)}

    def _device(self, folder, client):
        node = {"partition-id": client, "state-dir": str(folder / str(client))}
        return Context(RUN_ID, 11 + client, node, RecordDict(), {})

    def get_node_ids(self):
        return list(self.nodes)

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, last_activated_at="") for node in self.nodes]

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
        self.most = max(self.most, len(here))
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
            match self.faults.get((client, times)):
                case "hangs":
                    return None
                case "dies":
                    return Message(
                        Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "x"), reply_to=message
                    )
        return run_client(app, message, self.nodes[message.metadata.dst_node_id])

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time goes on by sleeping only."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(post, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0]))


@pytest.fixture(scope="module")
def data(federation, tiny_model, tmp_path_factory):
    folder = shutil.copytree(federation, tmp_path_factory.mktemp("data") / "texts")
    (folder / "device.yaml").write_text(f"models: [{tiny_model}]\n")
    return folder


@pytest.fixture
def link_run(tree, data, tmp_path):
    """A function that runs, or goes on with, a federation over a `SuperLink`, in `tmp_path`."""

    def go(link, stop_after=None, **more):
        server = {"mode": "buffered", "buffer": 1} | more.pop("server", {})
        settings = tree | {"data": tree["data"] | {"name": str(data)}, "engine": "flower"}
        settings |= {"flower": {"run": "a"}, "clients": 3, "server": server} | more
        run, folder = resolve(load_config(settings)), tmp_path / "run"
        folder.mkdir(exist_ok=True)
        write_config(run.config, folder)

        def watch(event):
            if event.kind == "round" and event.round == stop_after:
                raise KeyboardInterrupt

        run_rounds(link, run, folder, Journal(folder, watch))
        return folder

    return go


def compared(folder, devices, other):
    """By file, bytes of all tensors of the server and of the devices; and what the test found."""
    mine, finals, _ = numbers(folder)
    for i in range(3):
        kept = devices / str(i) / "a"
        mine |= {str(p.relative_to(kept)): p.read_bytes() for p in kept.rglob("*.safetensors")}
    drop = ("past.safetensors", "flying.safetensors")  # what is under way has another form
    theirs, others, _ = numbers(other)
    sides = [{n: b for n, b in side.items() if not n.endswith(drop)} for side in (mine, theirs)]
    return *sides, finals, others


def assert_equal(folder, devices, other):
    mine, theirs, finals, others = compared(folder, devices, other)
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert finals == others


def arrived(folder):
    return [(e["round"], e["client"], e["since"]) for e in events(folder, "arrived")]


@pytest.fixture(scope="module")
def simulated(tree, tmp_path_factory):
    """The same in simulated time: six steps, each after one arrival."""
    return comigs.run(buffered(tree, rounds=6), out=tmp_path_factory.mktemp("six")).folder


def test_in_the_order_of_simulated_time_it_is_that_run_bit_for_bit(link_run, simulated, tmp_path):
    order = [client for _, client, _ in arrived(simulated)]
    link = SuperLink(tmp_path / "devices", order)
    folder = link_run(link, rounds=6)
    assert arrived(folder) == arrived(simulated)
    assert any(since < number for number, _, since in arrived(folder))
    assert_equal(folder, tmp_path / "devices", simulated)
    assert link.most == 3
