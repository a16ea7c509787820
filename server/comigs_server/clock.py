"""Simulated time: what a round takes on the clients' devices. No wall clock is read.

Who is there and who is lost comes from (seed, client, round), the same for every method. A device
downloads, computes and uploads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comigs.costs.trip import seconds_until_lost, trip
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
    lost = {}
    for client, size in down.items():
        profile, share = run.profile(client), drops_out(run, client, number)
        if profile is None or share is None:
            continue
        seconds, computed = seconds_until_lost(run.client(client), size, share)
        reason = f"{profile.name} lost after {seconds:.0f} simulated seconds"
        lost[client] = Loss(profile.name, seconds, profile.watts * computed, reason)
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
