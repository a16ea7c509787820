"""What a round has cost: of each client, and of all together."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from comigs.aggregation.sizes import bytes_of
from comigs.config.profiles import Profile
from comigs.federation.closing import Closing
from comigs.federation.edges import at_edges_once, edges_of
from comigs.federation.run import Run
from comigs.store.events import ClientTrained, RoundDone, Untold
from comigs_server.combine.accountant import epsilon
from comigs_server.fleet.judge import Accepted
from comigs_server.resume import Progress, Totals
from comigs_server.timing.clock import Loss, trip_of


def trained(
    run: Run, number: int, accepted: Accepted, device: Profile | None, down: int
) -> ClientTrained:
    """The event of an accepted update.

    Args:
        number: the round.
        device: the client's, as it is in the round.
        down: bytes that the client fetched.
    """
    client, said = accepted.client, accepted.reported
    about = said.model_dump(exclude={"round", "fetches"}, exclude_none=True)
    up = accepted.bytes_up
    simulated = trip_of(run, client.id, device, said, up, down)
    return ClientTrained(
        round=number, client=client.id, name=client.name, **about,
        bytes_up=up, bytes_down=down, norm=accepted.norm, **simulated,
    )  # fmt: skip


def account(
    run: Run,
    progress: Progress,
    told: Mapping[int, ClientTrained],
    lost: Mapping[int, Loss],
    closing: Closing,
    failed: int,
    abandoned: bool,
    wall: float,
    since: Mapping[int, int],
    wait: float,
) -> RoundDone:
    """Move `progress` on by one round, and sum the round up.

    Args:
        told: by client, whose update was accepted.
        failed: clients without one, but for lost devices.
        abandoned: whether nothing was combined.
        wall: seconds that the round took here.
        since: by client whose update arrived, the round in which it began.
        wait: simulated seconds until enough devices were there to begin.
    """
    number, events = progress.round + 1, list(told.values())
    for client, event in told.items():
        progress.client_rounds[client] = event.since or number
        total = progress.totals.setdefault(client, Totals())
        total.bytes_up += event.bytes_up
        total.bytes_down += event.bytes_down
        total.seconds += event.seconds
    progress.round, progress.seconds = number, progress.seconds + wall
    private = run.config.privacy.mechanism == "client"
    done = RoundDone(
        round=number,
        clients=len(events),
        failed=failed,
        loss=_mean(event.loss for event in events),
        valid_ppl=_mean(event.valid_ppl for event in events),
        seconds=wall,
        compute_seconds=sum(e.train_seconds + e.eval_seconds for e in events),
        tokens_per_second=sum(e.tokens for e in events) / wall,
        bytes_up=sum(e.bytes_up for e in events),
        bytes_down=sum(e.bytes_down for e in events),
        metrics={
            name: mean
            for name in dict.fromkeys(name for e in events for name in e.metrics or {})
            if (mean := _mean((e.metrics or {}).get(name) for e in events)) is not None
        }
        or None,
        epsilon=epsilon(run.config.privacy, progress.draws) if private else Untold.UNTOLD,
    )
    if run.config.server.tiers is not None:
        shared = bytes_of({name: tuple(t.shape) for name, t in progress.shared.items()})
        up = shared * len(edges_of(run, closing.in_time))
        down = at_edges_once(run, {i: event.bytes_down for i, event in told.items()})
        done = replace(done, edge_up=up, edge_down=down)
    buffered = run.config.server.mode == "buffered"
    if buffered:
        progress.heard |= {i: e.valid_ppl for i, e in told.items() if e.valid_ppl is not None}
        fresh = any(event.valid_ppl is not None for event in events)
        done = replace(
            done,
            valid_ppl=_mean(progress.heard[i] for i in sorted(progress.heard)) if fresh else None,
            arrived=len(since),
            staleness=_mean(number - begun for begun in since.values()),
        )
    if run.devices is None:
        return done
    joules = sum(e.sim_joules or 0.0 for e in events) + sum(x.joules for x in lost.values())
    progress.sim_seconds += closing.seconds
    progress.sim_joules += joules
    return replace(
        done,
        sim_seconds=closing.seconds,
        sim_clock=progress.sim_seconds,
        sim_joules=joules,
        late=0 if buffered else len(closing.late),
        dropped=len(lost),
        abandoned=abandoned,
        sim_wait=wait or None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
