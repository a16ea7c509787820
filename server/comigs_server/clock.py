"""Simulated time: what a round takes on the clients' devices. No wall clock is read.

Who is there and who is lost comes from (seed, client, round), the same for every method. A device
downloads, computes and uploads; a round closes when enough updates have arrived, or at the
deadline.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comigs.costs.trip import trip
from comigs.federation.run import Run
from comigs.federation.selection import drops_out
from comigs.messages.reply import Reported


@dataclass(frozen=True)
class Loss:
    """A device that drops out of a round: seconds until that is known, joules spent, and why."""

    device: str
    seconds: float
    joules: float
    reason: str


def lost_devices(run: Run, number: int, down: Mapping[int, int]) -> dict[int, Loss]:
    """The devices that drop out of a round, at a moment drawn from (seed, client, round).

    Args:
        down: by client, the bytes it fetches.
    """
    config, lost = run.config, {}
    for client, size in down.items():
        profile, share = run.profile(client), drops_out(run, client, number)
        if profile is None or share is None:
            continue
        tokens = run.steps_per_round * config.batch_size * config.data.seq_len
        whole = trip(run.client(client), size, 0, tokens, 0, 0)
        computed = max(0.0, min(share * whole.seconds - whole.down, whole.compute))
        reason = f"{profile.name} lost after {share * whole.seconds:.0f} simulated seconds"
        joules = profile.watts * computed
        lost[client] = Loss(profile.name, share * whole.seconds, joules, reason)
    return lost


def trip_of(run: Run, client: int, said: Reported, up: int, down: int) -> dict[str, Any]:
    """The simulated fields of a client's event; {} without devices.

    The evaluation that only `log.eval_every` asks for is not in them.

    Args:
        up, down: bytes that it sent and fetched.
    """
    if (profile := run.profile(client)) is None:
        return {}
    peers = said.peer_evaluation_tokens or 0
    one = trip(run.client(client), down, up, said.tokens, said.router_tokens, peers)
    return {
        "device": profile.name,
        "sim_down": one.down,
        "sim_compute": one.compute,
        "sim_up": one.up,
        "sim_seconds": one.seconds,
        "sim_joules": one.joules,
    }


@dataclass(frozen=True)
class Closing:
    """How a round ended: its simulated length, and whose updates were in time."""

    seconds: float
    in_time: list[int]
    late: list[int]


def close_round(
    arrivals: Mapping[int, float],
    losses: Mapping[int, float],
    wanted: int,
    deadline: float | None,
) -> Closing:
    """Close a round as soon as `wanted` updates are there, nobody is left, or at the deadline.

    Args:
        arrivals: by client, seconds from the start of the round to its update.
        losses: by client, seconds until a lost device is known to be lost.
        wanted: updates that the server waits for.
        deadline: seconds; None to wait for the slowest.
    """
    order = sorted(arrivals, key=lambda client: (arrivals[client], client))
    limit = math.inf if deadline is None else deadline
    in_time = [client for client in order[:wanted] if arrivals[client] <= limit]
    if len(in_time) == wanted:
        seconds = arrivals[in_time[-1]]
    else:
        seconds = min(limit, max([*arrivals.values(), *losses.values()], default=0.0))
    late = [client for client in order if client not in in_time]
    return Closing(seconds, sorted(in_time), late)
