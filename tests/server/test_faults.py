"""A client that raises, hangs, dies, diverges or sends nonsense costs itself, not the run."""

import time
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, MetricRecord, RecordDict
from typer.testing import CliRunner

import comigs
import comigs.training.bilevel
import comigs_clients.app
import comigs_server.grids.inline
from comigs.cli.commands import app
from comigs.config.load import load_config
from comigs.errors import ComigsError
from comigs.federation.run import resolve
from comigs.local.round import train_round
from comigs.store.eventjson import to_object
from comigs.store.events import Failed
from comigs.store.state import saved_rounds
from comigs_server.grids.ray import RayGrid
from comigs_server.journal import Journal
from comigs_server.loop import run_rounds
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


@pytest.fixture
def faults(monkeypatch):
    """Faults by (round, client): each is called with what `train_round` gets."""
    table, calls = {}, []

    def train(order):
        table["calls"].append((order.round, order.client.number, order.state_round))
        fault = table.get((order.round, order.client.number), train_round)
        return fault(order)

    monkeypatch.setattr(comigs_clients.app, "train_round", train)
    table["calls"] = calls
    return table


def breaks(*_):
    raise RuntimeError("no\npower")


def hangs(*_):
    time.sleep(3600)


def diverges(order):
    config = order.client.config
    wild = replace(config, train=replace(config.train, lr=1e30))
    return train_round(replace(order, client=replace(order.client, config=wild)))


def gives(change):
    """Train, then change one shared tensor of what is sent."""

    def fault(*arguments):
        tensors, metrics = train_round(*arguments)
        name = min(name for name in tensors if ".generalist_" in name)
        return tensors | {name: change(tensors[name])}, metrics

    return fault


def failures(folder):
    return [(e["round"], e["client"], e["reason"]) for e in events(folder, "failure")]


def answered(folder):
    return [(e["clients"], e["failed"]) for e in events(folder, "round")]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (breaks, "RuntimeError: no power"),
        (hangs, "did not answer within 4 s (server.round_timeout)"),
        (diverges, "ComigsError: the training loss is nan"),
        (gives(lambda t: t * float("nan")), "holds NaN or infinity; it is not sent"),
        (gives(lambda t: t.double()), "is torch.float64; only float32 travels"),
    ],
    ids=["raises", "hangs", "diverges", "NaN", "float64"],
)
def test_one_client_fails_and_the_others_go_on(yaml_file, faults, tmp_path, fault, reason):
    faults[2, 1] = fault
    arguments = ["run", str(yaml_file), "server.round_timeout=4", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    [(number, client, said)] = failures(tmp_path)
    assert (number, client) == (2, 1)
    assert reason in said
    assert "\n" not in said
    flat = " ".join(result.stderr.split())
    assert f"round 2: client bo failed: {said}" in flat
    assert answered(tmp_path) == [(3, 0), (2, 1), (3, 0)]
    assert faults["calls"][-3:] == [(3, 0, 2), (3, 1, 1), (3, 2, 2)]
    finals = events(tmp_path, "final")
    assert [row["client"] for row in finals] == [0, 1, 2]
    assert all(row["after"] < 1e6 for row in finals)


@pytest.mark.parametrize("passes", [1, 2, 3, 5])
def test_a_client_stopped_in_the_middle_of_a_step_leaves_nothing_to_the_next(
    tree, faults, tmp_path, monkeypatch, passes
):
    """The clients of a process share the model; the numbers are as if it had not begun."""
    experts = {"specialists": [1, 1, 3], "top_k": 1, "rank": 2, "dropout": 0.1}
    tree = tree | {"experts": experts, "micro_batch_size": 1}
    loss = comigs.training.bilevel.token_loss

    def stops_midway(*arguments):
        calls = []

        def counted(*args):
            calls.append(args)
            return breaks() if len(calls) > passes else loss(*args)

        with monkeypatch.context() as patch:
            patch.setattr(comigs.training.bilevel, "token_loss", counted)
            return train_round(*arguments)

    faults[2, 0] = stops_midway
    midway = comigs.run(tree, out=tmp_path / "midway").folder
    faults[2, 0] = breaks
    assert_same_numbers(midway, comigs.run(tree, out=tmp_path / "at once").folder)


def test_too_few_answers_end_the_run_which_can_be_resumed(yaml_file, faults, finished, tmp_path):
    faults[2, 1] = breaks
    arguments = ["run", str(yaml_file), "server.min_clients=3", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "comigs: round 2: 2 of 3 clients answered, server.min_clients is 3 (bo: RuntimeError: "
        f"no power); the state of round 1 is saved; go on with: comigs run --resume {tmp_path}"
    )
    assert saved_rounds(tmp_path / "server") == [1]
    del faults[2, 1]
    assert CliRunner().invoke(app, ["run", "--resume", str(tmp_path)]).exit_code == 0
    assert_same_numbers(tmp_path, finished)
    assert failures(tmp_path) == []


def test_ray_workers_that_die_raise_or_hang_cost_one_client_one_round(tree, faults, tmp_path):
    """The faults of tests/server/faulty.py; a client that merely raises gives the same numbers."""
    config = load_config(tree | {"rounds": 4})
    ray, inline, seen = tmp_path / "ray", tmp_path / "inline", []
    ray.mkdir()
    with RayGrid("tests.server.faulty:app", 3, str(ray), 2, 1, timeout=10.0) as grid:
        run_rounds(grid, resolve(config), ray, Journal(ray, seen.append))
    assert failures(ray) == [
        (1, 0, "its worker process died"),
        (2, 1, "RuntimeError: no power"),
        (3, 2, "did not answer within 10 s (server.round_timeout)"),
    ]
    assert [to_object(e) for e in seen if isinstance(e, Failed)] == events(ray, "failure")
    assert answered(ray) == [(2, 1), (2, 1), (2, 1), (3, 0)]
    faults |= {(1, 0): breaks, (2, 1): breaks, (3, 2): breaks}
    comigs.run(tree | {"rounds": 4}, out=inline)
    assert_same_numbers(ray, inline)


def test_a_client_that_cannot_even_start_is_left_out(tree, tmp_path, monkeypatch):
    model_of = comigs_clients.app.model_of
    monkeypatch.setattr(
        comigs_clients.app,
        "model_of",
        lambda client: breaks() if client.number == 1 else model_of(client),
    )
    result = comigs.run(tree, out=tmp_path)
    said = [(e.get("round"), e["name"], e["reason"]) for e in events(tmp_path, "failure")]
    assert said == [(r, "bo", "RuntimeError: no power") for r in (1, 2, 3, None)]
    assert [row["client"] for row in result.table] == [0, 2]


def test_a_client_that_cannot_be_resumed_ends_the_run(tree, tmp_path, monkeypatch):
    comigs.run(tree, out=tmp_path)
    monkeypatch.setattr(comigs_clients.app, "intact_rounds", breaks)
    with pytest.raises(ComigsError, match=r"client ana cannot start: RuntimeError: no power"):
        comigs.app.run.resume(tmp_path)


def test_a_client_that_fails_only_in_the_final_evaluation_costs_its_row(
    tree, finished, tmp_path, monkeypatch
):
    evaluate = comigs_clients.app.final_evaluation

    def fail(client, *rest):
        return breaks() if client.number == 1 else evaluate(client, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(comigs_clients.app, "final_evaluation", breaks)
        with pytest.raises(ComigsError, match=r"none of 3 clients could .* \(cy: .* no power\)"):
            comigs.run(tree, out=tmp_path)
        patch.setattr(comigs_clients.app, "final_evaluation", fail)
        assert [row["client"] for row in comigs.app.run.resume(tmp_path).table] == [0, 2]
    assert [e["reason"] for e in events(tmp_path, "failure")] == ["RuntimeError: no power"]
    assert len(comigs.app.run.resume(tmp_path).table) == 3
    assert_same_numbers(tmp_path, finished)
    assert events(tmp_path, "failure") == []


def metrics_of(reply):
    return reply.content.metric_records["metrics"]


def says(**metrics):
    return lambda reply: metrics_of(reply).update(
        {k.replace("_", "-"): v for k, v in metrics.items()}
    )


def sends(change):
    """Change the first array of a reply, or its name."""

    def fault(reply):
        arrays = reply.content["arrays"]
        name = min(arrays)
        arrays.update(change(name, arrays.pop(name).numpy()))

    return fault


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r.content.pop("arrays"), "its reply cannot be used"),
        (lambda r: r.content.pop("metrics"), "its reply cannot be used"),
        (lambda r: metrics_of(r).pop("loss"), "its reply has loss"),
        (says(num_examples=float("nan")), "its reply has num-examples = nan"),
        (says(num_examples=-1), "its reply has num-examples"),
        (lambda r: setattr(r, "content", RecordDict({"x": MetricRecord()})), "its reply holds 'x'"),
        (lambda r: r.content.update({"text": MetricRecord({"x": 1})}), "its reply holds 'text'"),
        (says(client=0), "its reply has client"),
        (says(event=5), "its reply has event"),
        (says(bytes_down=7.0), "its reply has bytes-down"),
        (sends(lambda n, a: {n: Array(a * np.float32("nan"))}), "with NaN or infinity"),
        (sends(lambda n, a: {n: Array(a.astype("float64"))}), "as float64, not float32"),
        (sends(lambda n, a: {n: Array(a.T.copy())}), "with shape"),
        (sends(lambda n, a: {n: Array(np.tile(a, (99, 1)))}), "are enough"),
        (sends(lambda n, a: {n: Array(a * 1e6)}), "server.max_norm is 100"),
        (sends(lambda n, a: {}), "did not send"),
        (sends(lambda n, a: {n: Array(a), f"{n}2": Array(a)}), "which it does not share"),
    ],
)
def test_a_reply_that_makes_no_sense_costs_that_client_the_round(
    tree, tmp_path, monkeypatch, change, reason
):
    run_client = comigs_server.grids.inline.run_client

    def tampered(app, message, context):
        reply = run_client(app, message, context)
        is_it = message.metadata.message_type == "train" and message.metadata.dst_node_id == 2
        if is_it and message.content["config"]["server-round"] == 2:
            change(reply)
        return reply

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", tampered)
    comigs.run(tree | {"server": {"max_norm": 100.0}}, out=tmp_path)
    [(number, client, said)] = failures(tmp_path)
    assert (number, client) == (2, 1)
    assert reason in said
    assert answered(tmp_path) == [(3, 0), (2, 1), (3, 0)]


def test_the_reply_of_an_earlier_round_is_refused(tree, tmp_path, monkeypatch):
    run_client, first = comigs_server.grids.inline.run_client, []

    def replayed(app, message, context):
        reply = run_client(app, message, context)
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 2:
            first.append(reply.content)
            reply.content = first[0]
        return reply

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", replayed)
    comigs.run(tree, out=tmp_path)
    assert failures(tmp_path) == [
        (2, 1, "its reply is of round 1; this is round 2"),
        (3, 1, "its reply is of round 1; this is round 3"),
    ]


def test_a_number_that_no_list_names_does_not_leave_the_client(tree, faults, tmp_path):
    def tells_more(*arguments):
        tensors, metrics = train_round(*arguments)
        return tensors, metrics | {"words": 12}

    faults[2, 1] = tells_more
    comigs.run(tree, out=tmp_path)
    [(number, client, said)] = failures(tmp_path)
    assert (number, client) == (2, 1)
    assert "'words' does not leave the device" in said
