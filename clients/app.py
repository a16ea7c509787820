"""The Flower ClientApp: the same in every engine.

Messages carry the whole configuration, so a device needs nothing but its text and its state
folder (`state-dir` in its node config).
"""

import json
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from clients.payload import build_payload, final_reply, hello_reply, train_reply, unpack
from comigs.adapters import adapter_parameters
from comigs.config import RunConfig
from comigs.configload import load_config
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
    root = state_root(Path(str(context.node_config["state-dir"])), client)
    return config, client, root, order


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
    return hello_reply(message, about)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round and send back the shared tensors."""
    config, order = unwrap_order(message, context)
    trained = train_round(
        config, order.client, order.round, order.state_round, order.shared, order.root,
        order.proximal_mu,
    )  # fmt: skip
    return trained_reply(message, config, order.round, trained)


def unwrap_order(message: Message, context: Context) -> tuple[RunConfig, Order]:
    """What a train message asks for."""
    config, client, root, order = unwrap(message, context)
    mu = float(order.get("proximal-mu", 0.0))  # type: ignore[arg-type]
    numbers = (_number(order, "server-round"), _number(order, "state-round"))
    return config, Order(client, *numbers, unpack(_shared(message)), root, mu)


def trained_reply(message: Message, config: RunConfig, number: int, trained: Trained) -> Message:
    """The reply to a train message of round `number`."""
    tensors, metrics = trained
    arrays = build_payload(tensors, find_method(config.method).shares, config.payload)
    return train_reply(message, arrays, metrics, number)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final model on the test split."""
    config, client, root, order = unwrap(message, context)
    rows = final_evaluation(
        config, client, _number(order, "state-round"), unpack(_shared(message)), root
    )
    return final_reply(message, rows)
