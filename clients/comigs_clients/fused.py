"""Several train messages answered at once, for clients whose models have equal shapes."""

from collections.abc import Hashable, Sequence

from flwr.app import Context, Message
from flwr.app.message_type import MessageType

from comigs.errors import Refusal
from comigs.local.group import train_together
from comigs.messages.order import TrainAsked
from comigs_clients.app import trained_reply, unwrap, unwrap_order


def alike(message: Message, context: Context) -> Hashable:
    """Equal for train messages that `train_fused` may answer together; None for other messages."""
    if message.metadata.message_type != MessageType.TRAIN:
        return None
    try:
        task = unwrap(message, context, TrainAsked)
    except Refusal:  # it is answered by itself
        return None
    client, devices = task.run.client(task.number), task.run.devices
    own = client.config
    kind = devices[task.number] if devices else None  # Ray's pools are of one kind
    return client.experts, own.model, own.micro_batch, kind, task.order.server_round


def train_fused(
    messages: Sequence[Message], contexts: Sequence[Context]
) -> list[Message | Exception]:
    """Train the clients in the same passes. Returns per message a reply, or what was raised."""
    orders = [unwrap_order(*each) for each in zip(messages, contexts, strict=True)]
    answers: list[Message | Exception] = []
    results = train_together(orders)
    for message, order, result in zip(messages, orders, results, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            answers.append(trained_reply(message, order, result))
        except Exception as error:
            answers.append(error)
    return answers
