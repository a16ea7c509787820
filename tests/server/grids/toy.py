"""Toy ClientApps for the grid tests, importable by Ray workers. A client is its partition-id."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def partition(context: Context) -> int:
    return int(context.node_config["partition-id"])


def about(context: Context) -> ConfigRecord:
    return ConfigRecord(dict(context.node_config) | {"pid": os.getpid(), "node": context.node_id})


@app.query()
def echo(message: Message, context: Context) -> Message:
    """Who the client is, in the order it was asked (`context.state` counts)."""
    seen = context.state.setdefault("seen", MetricRecord({"count": 0}))
    seen["count"] += 1
    return Message(
        RecordDict({"about": about(context), "seen": MetricRecord(dict(seen))}), reply_to=message
    )


@app.query("threads")
def threads(message: Message, context: Context) -> Message:
    import torch

    count = {"torch": torch.get_num_threads(), "omp": int(os.environ.get("OMP_NUM_THREADS", 0))}
    return Message(RecordDict({"threads": MetricRecord(count)}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    """Client 1 raises, on two lines."""
    if partition(context) == 1:
        raise RuntimeError("no text\nfor this client")
    return echo(message, context)


@app.query("hang")
def hang(message: Message, context: Context) -> Message:
    """Client 2 never comes back, and catches every Exception."""
    while partition(context) == 2:
        try:
            time.sleep(0.01)
        except Exception:
            continue
    return echo(message, context)


@app.query("die")
def die(message: Message, context: Context) -> Message:
    """Client 1 kills its process the first time it is asked."""
    marker = Path(str(context.node_config["state-dir"])) / "died"
    if partition(context) == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return echo(message, context)


@app.query("crash")
def crash(message: Message, context: Context) -> Message:
    """Client 1 kills its process whenever it is asked; the file `crashes` counts."""
    if partition(context) == 1:
        with (Path(str(context.node_config["state-dir"])) / "crashes").open("a") as crashes:
            crashes.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return echo(message, context)


@app.query("quit")
def leave(message: Message, context: Context) -> Message:
    raise KeyboardInterrupt


@app.query("nothing")
def nothing(message: Message, context: Context) -> None:
    """Forget to reply."""


@app.query("sleep")
def sleep(message: Message, context: Context) -> Message:
    """Work for the `seconds` given for this client; the file `log` has each start and end."""
    seconds = message.content.config_records["seconds"]
    with (Path(str(context.node_config["state-dir"])) / "log").open("a", buffering=1) as log:
        log.write(f"start {partition(context)}\n")
        time.sleep(float(seconds[str(partition(context))]))
        log.write(f"end {partition(context)}\n")
    return echo(message, context)


def together(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Any]:
    """Say who is in the group. Of `query.fail` client 2 fails alone, and 3 with its whole group."""
    clients = [partition(context) for context in contexts]
    kind = messages[0].metadata.message_type
    if kind == "query.fail" and 3 in clients:
        raise RuntimeError("not\nwith me")
    if kind == "query.nap":
        time.sleep(0.5)
    for message, context in zip(messages, contexts, strict=True):
        {"query.crash": crash, "query.die": die}.get(kind, echo)(message, context)
    found = ConfigRecord({"group": clients, "pid": os.getpid()})
    return [
        ValueError("only me")
        if (kind, client) == ("query.fail", 2)
        else Message(RecordDict({"about": found}), reply_to=message)
        for client, message in zip(clients, messages, strict=True)
    ]


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add the client's number to every value, taking the arrays out of the message."""
    arrays = message.content.array_records["arrays"]
    message.content["config"]["lr"] = 0.0
    values = [array + partition(context) for array in arrays.to_numpy_ndarrays()]
    arrays.clear()
    metrics = MetricRecord({"num-examples": 1, "client": partition(context)})
    return Message(
        RecordDict({"arrays": ArrayRecord(values), "metrics": metrics}), reply_to=message
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    mean = float(message.content.array_records["arrays"].to_numpy_ndarrays()[0].mean())
    metrics = MetricRecord({"num-examples": 1, "mean": mean})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
