"""The Flower ClientApp: the same in every engine.

Messages carry the whole configuration, so a device needs nothing but its text and its state
folder (`state-dir` in its node config). Where runs have a `run-folder`, each keeps its state in a
folder of that name.
"""

import json
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.payload import build_payload, unpack
from comigs.adapters import adapter_parameters
from comigs.config import RunConfig
from comigs.configload import dump_yaml, load_config
from comigs.errors import ComigsError
from comigs.local import (
    Order,
    Trained,
    final_evaluation,
    model_of,
    train_round,
    training_clients,
)
from comigs.methods import find_method
from comigs.state import intact_rounds, state_root

app = ClientApp()


@lru_cache(maxsize=4)
def _parse(text: str) -> RunConfig:
    return load_config(json.loads(text))


def unwrap(message: Message, context: Context) -> tuple[RunConfig, int, Path, ConfigRecord]:
    """The run's configuration, the client's number and state folder, and the rest of the order."""
    order = message.content.config_records["config"]
    config = _parse(str(order["config"]))
    client = int(context.node_config["partition-id"])
    root = state_root(_own_folder(context), client)
    return config, client, root, order


def _own_folder(context: Context) -> Path:
    run = Path(str(context.run_config.get("run-folder", ""))).name
    if run == "..":
        raise ComigsError(f"run-folder is {context.run_config['run-folder']!r}; it has no name")
    return Path(str(context.node_config["state-dir"])) / run


def _number(order: ConfigRecord, key: str) -> int:
    value = order[key]
    if not isinstance(value, int):
        raise ComigsError(f"the server's message has {key} = {value!r}, not a number")
    return value


def _shared(message: Message) -> ArrayRecord:
    return message.content.array_records["arrays"]


@app.query()
def hello(message: Message, context: Context) -> Message:
    """Say who this device is, which rounds it has saved, and what it would share."""
    config, client, root, _ = unwrap(message, context)
    method = find_method(config.method)
    named = adapter_parameters(model_of(config, client)) if method.trains else {}
    about = {
        "client": client,
        "name": training_clients(config)[client],
        "rounds": intact_rounds(root),
        "shapes": {n: list(p.shape) for n, p in named.items() if method.shares(n)},
    }
    return Message(
        RecordDict({"hello": ConfigRecord({"json": json.dumps(about)})}), reply_to=message
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round and send back the shared tensors."""
    config, order = unwrap_order(message, context)
    trained = train_round(
        config, order.client, order.round, order.state_round, order.shared, order.root,
        order.proximal_mu,
    )  # fmt: skip
    return trained_reply(message, config, trained)


def unwrap_order(message: Message, context: Context) -> tuple[RunConfig, Order]:
    """What a train message asks for."""
    config, client, root, order = unwrap(message, context)
    mu = float(order.get("proximal-mu", 0.0))  # type: ignore[arg-type]
    numbers = (_number(order, "server-round"), _number(order, "state-round"))
    return config, Order(client, *numbers, unpack(_shared(message)), root, mu)


def trained_reply(message: Message, config: RunConfig, trained: Trained) -> Message:
    """The reply to a train message: the tensors that the share mask names, and metrics."""
    tensors, metrics = trained
    arrays = build_payload(tensors, find_method(config.method).shares)
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord(dict(metrics))}), reply_to=message
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final model on the test split."""
    config, client, root, order = unwrap(message, context)
    rows = final_evaluation(
        config, client, _number(order, "state-round"), unpack(_shared(message)), root
    )
    about = _own_folder(context) / "config.yaml"
    if context.run_config and not about.exists():  # makes it a run folder for `comigs generate`
        about.write_text(dump_yaml(config), encoding="utf-8")
    metrics = MetricRecord({"num-examples": sum(int(row["test_tokens"]) for row in rows)})
    final = ConfigRecord({"json": json.dumps(rows)})
    return Message(RecordDict({"metrics": metrics, "final": final}), reply_to=message)
