"""The Flower ClientApp: the same in every engine.

Messages carry the whole configuration, so a device needs nothing but its text and its state
folder (`state-dir` in its node config).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from comigs.config.load import write_config
from comigs.data.enough import tell_left_out
from comigs.data.tokens import amount
from comigs.errors import Refusal
from comigs.federation.clients import data_of, model_of
from comigs.federation.machine import with_compute
from comigs.federation.policy import Policy
from comigs.federation.run import Run, resolve
from comigs.hardware import resolve_device, use_device
from comigs.local.final import final_evaluation
from comigs.local.known import changed
from comigs.local.round import Order, Trained, train_round
from comigs.messages.codecs import Arrays
from comigs.messages.masking import MASKED
from comigs.messages.order import (
    Asked,
    BoxesTold,
    FinalAsked,
    KeysTold,
    RoundAsked,
    TrainAsked,
    UnmaskTold,
    read,
    read_config,
)
from comigs.methods import method_names
from comigs.mixture.adapters import adapter_parameters
from comigs.store.state import intact_rounds, round_folder, state_root
from comigs.threads import use_threads
from comigs_clients.payload import (
    build_payload,
    final_reply,
    hello_reply,
    secagg_reply,
    train_reply,
    unpack,
)
from comigs_clients.pin import hold_to
from comigs_clients.place import run_folder
from comigs_clients.policy import check_allowed, policy_of
from comigs_clients.seam import embedded, told
from comigs_clients.secagg import commitment, make_keys, make_shares, masked, reveal
from comigs_clients.wire import BUNDLE, bundle, unbundle

M = TypeVar("M", bound=Asked)
Answers = Callable[[Message, Context], Message]


def _in_codes(message: Message, context: Context, answer: Answers) -> Message:
    """What went wrong on a device stays in its log; a server gets a code.

    The clients of an embedded engine are the user's own, who gets the whole text.
    """
    try:
        return answer(message, context)
    except Exception as error:
        if embedded(context):
            raise
        raise told(error) from None


app = ClientApp(mods=[_in_codes])


@dataclass(frozen=True)
class Task(Generic[M]):
    """What a message asks of this device, checked.

    Attributes:
        number: of the client that the device is; behind a SuperLink it may be none of the run's.
    """

    run: Run
    number: int
    root: Path
    order: M
    policy: Policy


@lru_cache(maxsize=4)
def run_of(text: str) -> Run:
    """The run that messages with this configuration are about.

    A device that trains for itself chooses the arithmetic that it is good at.
    """
    config = read_config(text)
    return resolve(with_compute(config) if config.flower.run else config)


def unwrap(message: Message, context: Context, kind: type[M]) -> Task[M]:
    """The task of a message: by its schema, within the device's policy, of the run as pinned.

    Raises:
        Refusal: why it is not done.
    """
    order = read(kind, message.content.config_records.get("config"))
    config, node = read_config(order.config), context.node_config
    policy = Policy()
    if not embedded(context):
        if config.flower.run is None:
            raise Refusal("bad-config", "flower.run is null; a run has a name", "flower.run")
        policy = policy_of(node, config.data.name)
        check_allowed(policy, config)
    if (method := config.method) not in method_names():
        raise Refusal("bad-config", f"method {method!r} is unknown", "method")
    run, number = run_of(order.config), int(node["partition-id"])
    folder = run_folder(str(node["state-dir"]), config.flower.run)
    root = state_root(folder, number)
    state = getattr(order, "state_round", 0)
    if state and not (place := round_folder(root, state)).is_dir():
        raise Refusal("no-state", f"{place} is damaged (FileNotFoundError)", "state-round")
    if max(state, getattr(order, "server_round", 0)) > config.rounds:
        raise Refusal("bad-order", f"there are {config.rounds} rounds", "server-round")
    hold_to(config, folder)
    use_device(resolve_device(config.device))
    if config.flower.run:  # a process of its own
        use_threads(config.threads or 1)
        if not (folder / "config.yaml").exists():
            write_config(config, folder)
    return Task(run, number, root, order, policy)


def _arrays(message: Message) -> ArrayRecord:
    arrays = message.content.array_records.get("arrays")
    if arrays is None:
        raise Refusal("bad-arrays", "the server's message has no arrays")
    return arrays


def _shared(message: Message, task: Task[TrainAsked] | Task[FinalAsked]) -> dict[str, Tensor]:
    arrays, order = _arrays(message), task.order
    try:
        tensors = unpack(unbundle(arrays) if BUNDLE in arrays else arrays)
    except Exception as error:  # protobuf's, Flower's, NumPy's or a tokenizer's
        why = f"the server's arrays cannot be read ({type(error).__name__})"
        raise Refusal("bad-arrays", why) from None
    if not order.changes:
        return tensors
    return changed(task.run.client(task.number), tensors, task.root, order.state_round)


@app.query()
def hello(message: Message, context: Context) -> Message:
    """Say who this device is, which rounds it has saved, and what it would share."""
    task = unwrap(message, context, Asked)
    run, number = task.run, task.number
    if not 0 <= number < len(run.names):
        raise Refusal("no-client", f"partition-id is {number}; there are {len(run.names)} clients")
    if not embedded(context):  # else who started the run was told
        tell_left_out(run.config, [number])
    client, method = run.client(number), run.method
    named = adapter_parameters(model_of(client)) if method.trains else {}
    travelling = method.travelling({name: tuple(p.shape) for name, p in named.items()})
    about = {
        "client": number,
        "name": run.names[number],
        "rounds": intact_rounds(task.root),
        "shapes": {name: list(shape) for name, shape in travelling.items()},
    }
    if run.config.server.weighting == "samples":
        about["num-examples"] = amount(data_of(client).train)
    return hello_reply(message, about)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round and send back the shared tensors."""
    order = unwrap_order(message, context)
    return trained_reply(message, order, train_round(order))


def unwrap_order(message: Message, context: Context) -> Order:
    """What a train message asks for."""
    task = unwrap(message, context, TrainAsked)
    said = task.order
    if task.run.config.privacy.secure != "none":
        read(BoxesTold, message.content.config_records.get("secagg"))
    client, shared = task.run.client(task.number), _shared(message, task)
    return Order(
        client, said.server_round, said.state_round, shared, task.root, said.proximal_mu,
        said.kept_round, said.lr_factor,
    )  # fmt: skip


def trained_reply(message: Message, order: Order, trained: Trained) -> Message:
    """The reply to a train message."""
    (tensors, metrics), config = trained, order.client.config
    mask = partial(_masked, message, order) if config.privacy.secure != "none" else None
    arrays = build_payload(tensors, order.client.method.shares, config.payload, mask)
    if BUNDLE in _arrays(message):  # it goes back as it came
        arrays = bundle(arrays)
    return train_reply(message, arrays, metrics, order.round, config.log.metrics or ())


def _masked(message: Message, order: Order, update: Mapping[str, Tensor]) -> Arrays:
    """The update as one array under masks."""
    told = read(BoxesTold, message.content.config_records.get("secagg"))
    number, client, limit = order.round, order.client.number, order.client.config.privacy.range
    return {MASKED: masked(order.root, number, client, update, told.inbox, limit, told.count)}


@app.train("keys")
def keys(message: Message, context: Context) -> Message:
    """Secure aggregation: make keys for a round."""
    task = _secure(message, context)
    return secagg_reply(message, [task.number], make_keys(task.root, task.order.server_round))


@app.train("shares")
def shares(message: Message, context: Context) -> Message:
    """Secure aggregation: split the secrets among the clients whose keys have come."""
    task = _secure(message, context)
    told = read(KeysTold, message.content.config_records.get("secagg"))
    if told.threshold < max(task.policy.threshold, task.run.config.privacy.threshold or 2):
        raise Refusal("secagg", f"threshold is {told.threshold}; it must be greater", "threshold")
    number, client = task.order.server_round, task.number
    boxes = make_shares(task.root, number, client, told.public, told.threshold)
    told_all = boxes | {client: commitment(task.root, number)}
    return secagg_reply(message, list(told_all), list(told_all.values()))


@app.train("unmask")
def unmask(message: Message, context: Context) -> Message:
    """Secure aggregation: give the shares that remove the masks of the sum."""
    task = _secure(message, context)
    told = read(UnmaskTold, message.content.config_records.get("secagg"))
    given = reveal(task.root, task.order.server_round, told.clients, told.lost)
    return secagg_reply(message, list(given), list(given.values()))


def _secure(message: Message, context: Context) -> Task[RoundAsked]:
    task = unwrap(message, context, RoundAsked)
    if task.run.config.privacy.secure == "none":
        raise Refusal("secagg", "privacy.secure is none in this run", "privacy.secure")
    return task


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the final model on the test split."""
    task = unwrap(message, context, FinalAsked)
    client, number = task.run.client(task.number), task.order.state_round
    rows = final_evaluation(client, number, _shared(message, task), task.root)
    return final_reply(message, rows, client.config.log.metrics or ())
