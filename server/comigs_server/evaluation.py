"""The end of a run: clients evaluate the final model on their test split."""

import math
from collections.abc import Collection
from itertools import chain

from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from comigs.config.settings import RunConfig
from comigs.data.tokens import roster
from comigs.errors import flat
from comigs.federation.selection import takers_of_the_test
from comigs.messages.reply import Broken, read_rows
from comigs.methods import find_method
from comigs_server.delivery import nodes_of, sharer
from comigs_server.fleet.exchange import Client, address, collect, message_bytes, order, pack
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.resume import Progress, Totals

ABSENT_SECONDS = 60.0  # for clients behind a SuperLink that are away when the test begins


def evaluate(
    grid: Grid,
    config: RunConfig,
    clients: Registry,
    progress: Progress,
    strategy: FedAvg,
    journal: Journal,
) -> None:
    """Let the clients fetch the final tensors and test; write one `final` event per test stream."""
    for client in clients.absent(ABSENT_SECONDS):
        journal.write("failure", client=client.id, name=client.name, reason="it is not there")
    ids = takers_of_the_test(config, clients.ids)
    journal.watch({"event": "evaluation started", "clients": len(ids)})
    chosen, unreachable = clients.meet(ids)
    drafts = strategy.configure_evaluate(
        progress.round, pack(progress.shared), order(config), nodes_of(chosen)
    )
    pooled = find_method(config.method).pooled

    def streams(client: Client) -> Collection[str]:
        """The test streams that it may report on: its own, or everybody's where all is pooled."""
        return roster(config) if pooled else (client.name,)

    messages = address(drafts, chosen, progress.client_rounds, sharer(config, progress))
    down = {m.metadata.dst_node_id: message_bytes(m) for m in messages}
    for answer in chain(unreachable, collect(grid, messages, chosen, config.server.round_timeout)):
        client = answer.client
        if answer.reply is None:
            journal.write("failure", client=client.id, name=client.name, reason=answer.reason)
            continue
        total = progress.totals.get(client.id, Totals())
        try:
            rows = read_rows(answer.reply.content.config_records["final"]["json"], streams(client))
        except Exception as error:  # of whatever kind: it is about what a client sent
            why = str(error) if isinstance(error, Broken) else "lacks its record"
            reason = flat(f"its final report {why}")
            journal.write("failure", client=client.id, name=client.name, reason=reason)
            continue
        for row in rows:
            journal.write(
                "final",
                client=client.id,
                **row,
                bytes_up=total.bytes_up,
                bytes_down=total.bytes_down + down[client.node],
                seconds=total.seconds,
                communicated=sum(math.prod(shape) for shape in client.shapes.values()),
            )
