"""What one client's part in a round costs on its device, in simulated seconds and joules."""

from dataclasses import dataclass

from comigs.config.model import NATIVE
from comigs.costs.work import token_flops
from comigs.federation.run import Client


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


def trip(
    client: Client,
    bytes_down: float,
    bytes_up: float,
    tokens: float,
    router_tokens: float,
    evaluated: float,
) -> Trip:
    """One client's part in a round.

    Args:
        client: with a device.
        bytes_down, bytes_up: what the device fetches and sends.
        tokens, router_tokens: that its experts and its routers train on.
        evaluated: tokens of evaluations that belong to the method.
    """
    device = client.profile
    assert device is not None
    cost = token_flops(client)
    flops = tokens * cost.expert + router_tokens * cost.router + evaluated * cost.look
    compute = flops / device.flops[NATIVE[client.dtype]]
    return Trip(
        device.latency + bytes_down / device.down,
        compute,
        device.latency + bytes_up / device.up,
        device.watts * compute,
    )


def expected_trip(client: Client, bytes_down: float, bytes_up: float, done: int) -> Trip:
    """`trip` of a round before it is trained: exact but for methods that look only at times.

    Args:
        done: rounds that the client has trained before.
    """
    config, steps = client.config, client.run.steps_per_round
    batch, every = config.batch_size * config.data.seq_len, config.router.every
    router = ((done + 1) * steps // every - done * steps // every) * config.router.steps
    looks = client.method.looks(config)
    return trip(client, bytes_down, bytes_up, steps * batch, router * batch, looks)


def seconds_until_lost(client: Client, bytes_down: float, share: float) -> tuple[float, float]:
    """Simulated seconds until a device is lost, and those of them that it computed.

    Args:
        share: of its download and training (without routers) that it stays for.
    """
    config = client.config
    tokens = client.run.steps_per_round * config.batch_size * config.data.seq_len
    whole = trip(client, bytes_down, 0, tokens, 0, 0)
    seconds = share * whole.seconds
    return seconds, max(0.0, min(seconds - whole.down, whole.compute))
