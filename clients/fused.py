"""Several train messages answered at once, for clients whose models have equal shapes."""

from collections.abc import Hashable, Sequence

from flwr.app import Context, Message
from flwr.app.message_type import MessageType

from clients.app import trained_reply, unwrap, unwrap_order
from comigs.group import train_together
from comigs.local import experts_of


def alike(message: Message, context: Context) -> Hashable:
    """Equal for train messages that `train_fused` may answer together; None for other messages."""
    if message.metadata.message_type != MessageType.TRAIN:
        return None
    config, client, _, order = unwrap(message, context)
    own = config.for_client(client)
    return experts_of(config, client), own.model, own.micro_batch, order["server-round"]


def train_fused(
    messages: Sequence[Message], contexts: Sequence[Context]
) -> list[Message | Exception]:
    """Train the clients in the same passes. Returns per message a reply, or what was raised."""
    asked = [unwrap_order(*each) for each in zip(messages, contexts, strict=True)]
    config = asked[0][0]
    answers: list[Message | Exception] = []
    results = train_together(config, [order for _, order in asked])
    for message, (_, order), result in zip(messages, asked, results, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            answers.append(trained_reply(message, config, order, result))
        except Exception as error:
            answers.append(error)
    return answers
