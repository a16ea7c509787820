"""What one client's part in a round costs on its device, in simulated seconds and joules."""

import math
from dataclasses import dataclass

from comigs.config.model import NATIVE
from comigs.config.profiles import Profile
from comigs.costs.work import TokenFlops, token_flops
from comigs.federation.run import Client
from comigs.federation.selection import drops_out


@dataclass(frozen=True)
class Trip:
    """Seconds of download, compute and upload, and the joules that computing takes."""

    down: float
    compute: float
    up: float
    joules: float

    @property
    def seconds(self) -> float:
        return self.down + self.compute + self.up


@dataclass(frozen=True)
class Lost:
    """A device that is lost in a round: seconds from its beginning, and those that it computed."""

    seconds: float
    computed: float


def trip(
    client: Client,
    device: Profile,
    cost: TokenFlops,
    bytes_down: float,
    bytes_up: float,
    tokens: float,
    router_tokens: float,
    evaluated: float,
) -> Trip:
    """One client's part in a round.

    Args:
        device: the client's, as it is in the round.
        cost: of the client's steps in the round.
        bytes_down, bytes_up: what it fetches and sends.
        tokens, router_tokens: that its experts and its routers train on.
        evaluated: tokens of evaluations that belong to the method.
    """
    flops = tokens * cost.expert + router_tokens * cost.router + evaluated * cost.look
    compute = flops / device.flops[NATIVE[client.dtype]]
    return Trip(
        device.latency + bytes_down / device.down,
        compute,
        device.latency + bytes_up / device.up,
        device.watts * compute,
    )


def expected_trip(
    client: Client, device: Profile, number: int, bytes_down: float, bytes_up: float, done: int
) -> Trip:
    """`trip` of round `number` before it is trained: exact but for methods that look only at times.

    Args:
        done: rounds that the client has trained before.
    """
    config, steps = client.config, client.run.steps_per_round
    batch, every = config.batch_size * config.data.seq_len, config.router.every
    router = ((done + 1) * steps // every - done * steps // every) * config.router.steps
    looks = client.method.looks(config)
    cost, tokens = token_flops(client, number), steps * batch
    return trip(client, device, cost, bytes_down, bytes_up, tokens, router * batch, looks)


def lost_in(
    client: Client, device: Profile, number: int, bytes_down: float, begin: float
) -> Lost | None:
    """How a device is lost in round `number`; None if it stays.

    It drops out at a share of its download and training (without routers) that is drawn from (seed,
    client, round), or is not there any more (`devices.traces`) before these are done: what is being
    sent by then arrives.

    Args:
        begin: simulated seconds at which the round begins.
    """
    config, run = client.config, client.run
    share, times = drops_out(run, client.number, number), run.availability
    if share is None and times is None:
        return None
    tokens = run.steps_per_round * config.batch_size * config.data.seq_len
    whole = trip(client, device, token_flops(client, number), bytes_down, 0, tokens, 0, 0)
    drops = math.inf if share is None else share * whole.seconds
    leaves = math.inf if times is None else times.stays(client.number, begin)
    if leaves >= whole.down + whole.compute:
        leaves = math.inf
    seconds = min(drops, leaves)
    if seconds == math.inf:
        return None
    return Lost(seconds, max(0.0, min(seconds - whole.down, whole.compute)))
