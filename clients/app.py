"""The Flower ClientApp: the same in every engine.

Messages carry the whole configuration, so a device needs nothing but its text and its state
folder (`state-dir` in its node config).
"""

import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.payload import (
    build_payload,
    final_reply,
    hello_reply,
    secagg_reply,
    train_reply,
    unpack,
)
from clients.place import run_folder
from clients.secagg import make_keys, make_shares, masked, reveal
from clients.wire import BUNDLE, bundle, unbundle
from comigs.adapters import adapter_parameters
from comigs.codecs import Arrays
from comigs.config import RunConfig
from comigs.configload import load_config, write_config
from comigs.errors import ComigsError
from comigs.local import (
    Order,
    Trained,
    final_evaluation,
    model_of,
    train_round,
    training_clients,
)
from comigs.masking import MASKED
from comigs.methods import find_method
from comigs.state import intact_rounds, state_root

app = ClientApp()


@lru_cache(maxsize=4)
def _parse(text: str) -> RunConfig:
    if "${" in text:  # it would be filled in with this device's environment
        raise ComigsError("the server's configuration holds ${...}; a device does not fill it in")
    return load_config(json.loads(text))


def unwrap(message: Message, context: Context) -> tuple[RunConfig, int, Path, ConfigRecord]:
    """The run's configuration, the client's number and state folder, and the rest of the order."""
    order = message.content.config_records["config"]
    config = _parse(str(order["config"]))
    client = int(context.node_config["partition-id"])
    folder = run_folder(str(context.node_config["state-dir"]), config.flower.run)
    if config.flower.run:  # a process of its own
        torch.set_num_threads(config.threads or 1)
        if not (folder / "config.yaml").exists():
            write_config(config, folder)
    root = state_root(folder, client)
    return config, client, root, order


def _number(order: ConfigRecord, key: str) -> int:
    value = order[key]
    if not isinstance(value, int):
        raise ComigsError(f"the server's message has {key} = {value!r}, not a number")
    return value


def _arrays(message: Message) -> ArrayRecord:
    return message.content.array_records["arrays"]


def _shared(message: Message) -> dict[str, Tensor]:
    arrays = _arrays(message)
    return unpack(unbundle(arrays) if BUNDLE in arrays else arrays)


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
    return trained_reply(message, config, order, trained)


def unwrap_order(message: Message, context: Context) -> tuple[RunConfig, Order]:
    """What a train message asks for."""
    config, client, root, order = unwrap(message, context)
    mu = float(order.get("proximal-mu", 0.0))  # type: ignore[arg-type]
    numbers = (_number(order, "server-round"), _number(order, "state-round"))
    return config, Order(client, *numbers, _shared(message), root, mu)


def trained_reply(message: Message, config: RunConfig, order: Order, trained: Trained) -> Message:
    """The reply to a train message."""
    tensors, metrics = trained
    mask = partial(_masked, message, config, order) if config.privacy.secure != "none" else None
    arrays = build_payload(tensors, find_method(config.method).shares, config.payload, mask)
    if BUNDLE in _arrays(message):  # it goes back as it came
        arrays = bundle(arrays)
    return train_reply(message, arrays, metrics, order.round)


def _masked(
    message: Message, config: RunConfig, order: Order, update: Mapping[str, Tensor]
) -> Arrays:
    """The update as one array under masks."""
    record: Any = message.content.config_records["secagg"]
    inbox = dict(zip(record["clients"], record["values"], strict=True))
    limit, count = config.privacy.range, record["count"]
    return {MASKED: masked(order.root, order.round, order.client, update, inbox, limit, count)}


@app.train("keys")
def keys(message: Message, context: Context) -> Message:
    """Secure aggregation: make keys for a round."""
    _, client, root, order = unwrap(message, context)
    return secagg_reply(message, [client], make_keys(root, _number(order, "server-round")))


@app.train("shares")
def shares(message: Message, context: Context) -> Message:
    """Secure aggregation: split the secrets among the clients whose keys have come."""
    _, client, root, order = unwrap(message, context)
    record: Any = message.content.config_records["secagg"]
    pairs = zip(record["values"][::2], record["values"][1::2], strict=True)
    public = dict(zip(record["clients"], pairs, strict=True))
    number = _number(order, "server-round")
    boxes = make_shares(root, number, client, public, record["threshold"])
    return secagg_reply(message, list(boxes), list(boxes.values()))


@app.train("unmask")
def unmask(message: Message, context: Context) -> Message:
    """Secure aggregation: give the shares that remove the masks of the sum."""
    _, _, root, order = unwrap(message, context)
    record: Any = message.content.config_records["secagg"]
    number = _number(order, "server-round")
    told = reveal(root, number, record["clients"], record["lost"])
    return secagg_reply(message, list(told), list(told.values()))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final model on the test split."""
    config, client, root, order = unwrap(message, context)
    rows = final_evaluation(config, client, _number(order, "state-round"), _shared(message), root)
    return final_reply(message, rows)
