"""Messages to the toy clients of a grid (tests/server/grids/toy.py), and their replies."""

from flwr.app import Message, RecordDict

from comigs_server.grids.client import Together
from tests.server.grids import toy

PAIRS = Together(
    2, lambda message, context: toy.partition(context) % 2, "tests.server.grids.toy:together"
)


def ask(grid, message_type="query", nodes=None, content=None):
    content = RecordDict() if content is None else content
    nodes = grid.get_node_ids() if nodes is None else nodes
    return [Message(content, node, message_type) for node in nodes]


def by_client(replies):
    return {reply.metadata.src_node_id - 1: reply for reply in replies}


def failures(replies):
    return {reply.metadata.src_node_id - 1 for reply in replies if reply.has_error()}


def pids(replies):
    return {reply.content.config_records["about"]["pid"] for reply in replies}
