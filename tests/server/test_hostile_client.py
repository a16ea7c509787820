"""A hostile or broken client loses its round, and nothing else: the run goes on to its end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from rich.console import Console

import comigs
import comigs_server.grids.inline
from comigs.config.load import load_config
from comigs.errors import flat
from comigs.federation.run import resolve
from comigs.report.page import write_report
from comigs.store.events import Failed
from comigs.store.passing import Refused
from comigs.track.progress import Progress, final_table
from comigs.track.tensorboard import write_events
from comigs_server.fleet.exchange import Answer
from comigs_server.fleet.registry import Registry
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
HEADERS = [
    b"{'a': (", b"{'descr': '''", b"  {'descr': '<f4'}", b"(" * 900, b"\xff" * 100, b"1" * 900,
]  # fmt: skip


def metrics(**changed):
    def change(reply):
        record = reply.content["metrics"]
        record.update({key.replace("_", "-"): value for key, value in changed.items()})

    return change


def header(text):
    """The array's data begin with a header that does not parse."""

    def change(reply):
        name, array = next(iter(reply.content["arrays"].items()))
        data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
        reply.content["arrays"][name] = Array(array.dtype, array.shape, array.stype, data)

    return change


def scaled(factor):
    def change(reply):
        arrays = reply.content["arrays"].items()
        longer = {n: Array((a.numpy() * factor).astype(np.float32)) for n, a in arrays}
        reply.content["arrays"] = ArrayRecord(longer)

    return change


def raises(text):
    def change(reply):
        raise RuntimeError(text)

    return change


TRAIN = [
    metrics(num_examples=10**15),
    metrics(tokens=2**62),
    metrics(loss=True),
    metrics(seconds=float("nan")),
    metrics(train_seconds=float("inf")),
    metrics(valid_ppl=0.5),
    *map(header, HEADERS),
    scaled(1e37),
    raises("[/x] boom"),
    raises('one\ncomigs-event {"event": "end", "seconds": 1}'),
    raises("\x1b[2J" + "x" * 10**6),
    lambda reply: reply.content.pop("metrics"),
    lambda reply: reply.content.pop("arrays"),
    lambda reply: reply.content.update({"arrays": MetricRecord({"a": 1})}),
]


@pytest.fixture
def hostile(monkeypatch):
    """Client 1 answers as the test says, message by message of a kind."""
    run_client, changes = comigs_server.grids.inline.run_client, {}

    def answers(app, message, context):
        left = changes.get(message.metadata.message_type, [])
        if message.metadata.dst_node_id != 2 or not left:
            return run_client(app, message, context)
        change = left.pop(0)

        def changed(message, context):
            reply = app(message, context)
            change(reply)
            return reply

        return run_client(changed, message, context)

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", answers)
    return changes


@pytest.mark.slow
def test_whatever_a_client_sends_costs_it_the_round_alone(tree, tmp_path, hostile, capsys):
    tree = tree | {"rounds": len(TRAIN), "log": {"tensorboard": True, "eval_every": 0}}
    hostile["train"] = list(TRAIN)
    progress = Progress()
    run = comigs.run(tree, out=tmp_path, trackers=[progress])
    failed = events(tmp_path, "failure")
    assert [e["round"] for e in failed] == list(range(1, len(TRAIN) + 1))
    assert {e["client"] for e in failed} == {1}
    assert all(e["reason"].isprintable() and len(e["reason"]) <= 300 for e in failed)
    assert [e["clients"] for e in events(tmp_path, "round")] == [2] * len(TRAIN)
    assert all(row["after"] < 1e5 for row in run.table)
    assert "[/x] boom" in capsys.readouterr().err.replace("\n", "")


def told(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda reply: reply.content.update({"hello": ConfigRecord({"json": text})})


GOOD = {"client": 1, "name": "bo", "rounds": [], "shapes": {}}
HELLOS = [
    lambda reply: reply.content.pop("hello"),
    told("no json"),
    told([1]),
    told("[" * 5000),
    told(GOOD | {"client": "1"}),
    told(GOOD | {"client": 0}),
    told(GOOD | {"client": 7}),
    told(GOOD | {"name": "ana"}),
    told(GOOD | {"rounds": [-1]}),
    told(GOOD | {"rounds": 10**6}),
    told(GOOD | {"shapes": {"a": ["x"]}}),
    told(GOOD | {"shapes": {"l.lora_A.generalist_0.weight": [99, 99]}}),
]


@pytest.mark.slow
def test_whatever_a_client_says_of_itself_costs_it_the_round_alone(tree, tmp_path, hostile):
    """It is asked again in the next round, as long as it has not said who it is."""
    hostile["query"] = list(HELLOS)
    comigs.run(tree | {"rounds": len(HELLOS) + 1, "log": {"eval_every": 0}}, out=tmp_path)
    failed = events(tmp_path, "failure")
    assert [(e["round"], e["client"]) for e in failed if "round" in e] == [
        (number, 1) for number in range(1, len(HELLOS) + 1)
    ]


def report(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda reply: reply.content.update({"final": ConfigRecord({"json": text})})


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda reply: reply.content.pop("final"),
        report("no json"),
        report([{"client": 0, "event": "end"}]),
        report([{"name": "ana", "after": 1e400}]),
    ],
    ids=["missing", "no JSON", "our names", "a number beyond a float"],
)
def test_a_final_report_that_makes_no_sense_is_its_client_s_fault(tree, tmp_path, hostile, change):
    hostile["evaluate"] = [change]
    run = comigs.run(tree | {"rounds": 1, "log": {"eval_every": 0}}, out=tmp_path)
    assert [row["client"] for row in run.table] == [0, 2]
    assert [e["client"] for e in events(tmp_path, "failure")] == [1]
    write_events(tmp_path)
    write_report([tmp_path])


@pytest.mark.slow
def test_a_boast_about_its_text_does_not_take_the_mean_over(tree, tmp_path, hostile):
    hostile["train"] = [metrics(num_examples=10**12)]
    tree = tree | {"rounds": 1, "server": {"weighting": "samples"}}
    comigs.run(tree, out=tmp_path)
    [failure] = events(tmp_path, "failure")
    assert "it said" in failure["reason"]


class Nodes:
    """A SuperLink with nodes that say what the test wants."""

    def __init__(self, said):
        self.said = said

    def get_node_ids(self):
        return list(self.said)


def registry(monkeypatch, said, **flower):
    """A registry behind a SuperLink; returns it, and what is wrong with each node."""
    grid = Nodes(said)

    def collect(grid, messages, strangers, timeout):
        for one in strangers:
            number = grid.said[one.node]
            text = json.dumps(GOOD | {"client": number, "name": f"c{number}"})
            record = SimpleNamespace(config_records={"hello": {"json": text}})
            yield Answer(one, SimpleNamespace(content=record))

    monkeypatch.setattr("comigs_server.fleet.registry.collect", collect)
    monkeypatch.setattr("comigs_server.fleet.registry.query_messages", lambda *_: [])
    config = load_config({"engine": "flower", "clients": 3, "flower": flower})
    return grid, Registry(grid, resolve(config))


def test_a_number_belongs_to_the_node_that_claimed_it_first(monkeypatch):
    grid, clients = registry(monkeypatch, {11: 0, 12: 1})
    assert clients.look() == []
    grid.said[66] = 0
    [answer] = clients.look()
    assert "is that of client 0, which node 11 was first to be" in answer.reason
    assert clients.ids == [0, 1]
    del grid.said[11], grid.said[66]  # away for a while, and nobody takes its place
    grid.said[67] = 0
    assert "which node 11 was first to be" in clients.look()[0].reason
    assert clients.ids == [1]
    grid.said[11] = 0
    assert clients.look() == [] and clients.ids == [0, 1]


def test_without_keys_a_node_that_starts_again_has_another_number(monkeypatch):
    grid, clients = registry(monkeypatch, {11: 0}, keyless=True)
    clients.look()
    grid.said[12] = 0
    assert "was first to be" in clients.look()[0].reason
    del grid.said[11], grid.said[12]
    clients.look()
    grid.said[13] = 0
    assert clients.look() == [] and clients.ids == [0]


def test_a_client_that_does_not_exist_is_refused(monkeypatch):
    _, clients = registry(monkeypatch, {11: 3})
    assert "there are 0..2" in clients.look()[0].reason
    assert clients.ids == []


def test_a_long_text_is_cut_before_anything_else():
    assert flat("a\nb\x1b[31m\tc") == "a b [31m c"
    assert len(flat("x" * 50_000_000)) == 300


def test_names_and_reasons_are_shown_as_they_are(capsys):
    progress = Progress()
    progress.event(Failed("[bold]a", "[/x] b", 0))
    progress.event(Refused("[/a]", "[/b]"))
    row = dict.fromkeys(("pretrained", "before", "after", "seconds"), 2.0)
    row |= {"name": "[/c]", "bytes_up": 1, "bytes_down": 1}
    Console(stderr=True).print(final_table([row]))
    shown = capsys.readouterr().err
    assert all(text in shown for text in ("[bold]a", "[/x] b", "[/a]", "[/b]", "[/c]"))
