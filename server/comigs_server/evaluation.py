"""The end of a run: clients evaluate the final model on their test split."""

import math
from collections.abc import Sequence
from itertools import chain

from flwr.serverapp import Grid

from comigs.data.roster import roster
from comigs.errors import ComigsError, flat
from comigs.federation.layers import of_round
from comigs.federation.run import Run
from comigs.federation.selection import takers_of_the_test
from comigs.messages.reply import Broken, read_rows
from comigs.store.events import Evaluated, Failed
from comigs.store.passing import EvaluationStarted
from comigs_server.delivery import parcels, takes_changes
from comigs_server.fleet.exchange import Client, collect, in_parts
from comigs_server.fleet.records import bytes_of, node_of, tensor_messages, text_of
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.resume import Progress, Totals

ABSENT_SECONDS = 60.0  # for clients behind a SuperLink that are away when the test begins


def evaluate(grid: Grid, run: Run, clients: Registry, progress: Progress, journal: Journal) -> None:
    """Let the clients fetch the final tensors and test; write one event per test stream.

    Raises:
        ComigsError: when nobody could.
    """
    for client in clients.absent(ABSENT_SECONDS):
        journal.write(Failed(client.name, "it is not there", client.id))
    ids = takers_of_the_test(run, clients.ids)
    journal.tell(EvaluationStarted(len(ids)))
    tested = [_evaluate(grid, run, clients, progress, journal, some) for some in in_parts(ids)]
    if not any(tested):
        raise ComigsError(
            f"none of {len(ids)} clients could test its final model{journal.why(None)}; the state "
            f"of round {progress.round} is saved"
        )


def _evaluate(
    grid: Grid,
    run: Run,
    clients: Registry,
    progress: Progress,
    journal: Journal,
    ids: Sequence[int],
) -> bool:
    """Whether any of these clients has told what its test came to."""

    def failed(client: Client, reason: str) -> None:
        journal.write(Failed(client.name, reason, client.id))

    chosen, unreachable = clients.meet(ids)
    messages = tensor_messages(
        "evaluate",
        run,
        chosen,
        parcels(run, progress),
        lambda client: {
            "server-round": progress.round,
            "state-round": progress.client_rounds.get(client.id, 0),
            "changes": takes_changes(run, progress, client),
        },
    )
    down = {node_of(message): bytes_of(message) for message in messages}
    timeout, told = run.config.server.round_timeout, False
    for answer in chain(unreachable, collect(grid, messages, chosen, timeout)):
        client = answer.client
        if answer.reply is None:
            failed(client, answer.reason)
            continue
        total = progress.totals.get(client.id, Totals())
        may_report_on = roster(run.config) if run.method.pooled else (client.name,)
        try:
            rows = read_rows(
                text_of(answer.reply, "final"), may_report_on, run.config.log.metrics or ()
            )
        except Exception as error:  # of whatever kind: it is about what a client sent
            why = str(error) if isinstance(error, Broken) else "lacks its record"
            failed(client, flat(f"its final report {why}"))
            continue
        sent = of_round(run.config, client.id, run.config.rounds, client.shapes)
        for row in rows:
            tested = Evaluated(
                client=client.id,
                **row.model_dump(exclude_unset=True),
                bytes_up=total.bytes_up,
                bytes_down=total.bytes_down + down[client.node],
                seconds=total.seconds,
                communicated=sum(math.prod(shape) for shape in sent.values()),
            )
            journal.write(tested)
            told = True
    return told
