"""Backlog: which waiting message starts next."""

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from comigs_server.grids.backlog import Backlog
from comigs_server.grids.inline import InlineGrid


def fill(*nodes, message_type="train"):
    InlineGrid(ClientApp(), 1, "")  # names this process to Flower
    backlog = Backlog()
    messages = [Message(RecordDict(), node, message_type) for node in nodes]
    return backlog, messages, [backlog.add(message) for message in messages]


def drain(backlog, busy=()):
    order = []
    while (message := backlog.slowest(busy)) is not None:
        backlog.remove([message.metadata.message_id])
        order.append(message.metadata.dst_node_id)
    return order


def test_unknown_nodes_keep_push_order():
    backlog, _, _ = fill(3, 1, 2)
    assert drain(backlog) == [3, 1, 2]


def test_the_slowest_node_comes_first_and_an_unknown_one_before_it():
    backlog, messages, _ = fill(1, 2, 3, 4)
    for message, seconds in zip(messages[:3], (5.0, 1.0, 9.0), strict=True):
        backlog.took(message, seconds)
    assert drain(backlog) == [4, 3, 1, 2]


def test_a_busy_node_waits_and_its_messages_stay_in_push_order():
    backlog, messages, ids = fill(1, 2, 1)
    backlog.took(messages[1], 1.0)
    assert drain(backlog, busy={1}) == [2]
    assert backlog.first(ids) is messages[0]
    assert drain(backlog) == [1, 1]


def test_first_follows_push_order_whatever_the_order_of_the_ids():
    backlog, messages, ids = fill(1, 2, 3)
    assert backlog.first(ids[:0:-1]) is messages[1]
    backlog.remove(ids)
    assert backlog.first(ids) is None
