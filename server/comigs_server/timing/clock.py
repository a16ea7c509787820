"""Simulated time: what a round takes on the clients' devices. No wall clock is read.

What devices are like in a round and who drops out comes from (seed, client, round), the same for
every method. A device downloads, computes and uploads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comigs.config.profiles import Profile
from comigs.costs.trip import lost_in, trip
from comigs.costs.work import token_flops
from comigs.federation.run import Run
from comigs.messages.reply import Reported


@dataclass(frozen=True)
class Loss:
    """A device that is lost in a round: when that is known, joules spent, and why.

    Attributes:
        seconds: since the round before has closed.
    """

    device: str
    seconds: float
    joules: float
    reason: str


def lost_devices(
    run: Run,
    number: int,
    devices: Mapping[int, Profile],
    down: Mapping[int, int],
    begin: float,
    wait: float,
) -> dict[int, Loss]:
    """The devices that are lost in a round (`comigs.costs.trip.lost_in`).

    Args:
        devices: by client, as they are in the round.
        down: by client, the bytes it fetches.
        begin: simulated seconds at which the round begins.
        wait: those of them since the round before has closed.
    """
    found = {}
    for client, device in devices.items():
        lost = lost_in(run.client(client), device, number, down[client], begin)
        if lost is None:
            continue
        reason = f"{device.name} lost after {lost.seconds:.0f} simulated seconds"
        joules = device.watts * lost.computed
        found[client] = Loss(device.name, wait + lost.seconds, joules, reason)
    return found


def trip_of(
    run: Run, client: int, device: Profile | None, said: Reported, up: int, down: int
) -> dict[str, Any]:
    """The simulated fields of a client's event; {} without devices.

    The evaluation that only `log.eval_every` asks for is not in them.

    Args:
        device: as it is in the round.
        up, down: bytes that it sent and fetched.
    """
    if device is None:
        return {}
    peers, trainee = said.peer_evaluation_tokens or 0, run.client(client)
    cost = token_flops(trainee, said.round)
    one = trip(trainee, device, cost, down, up, said.tokens, said.router_tokens, peers)
    return {
        "device": device.name,
        "sim_down": one.down,
        "sim_compute": one.compute,
        "sim_up": one.up,
        "sim_seconds": one.seconds,
        "sim_joules": one.joules,
    }
