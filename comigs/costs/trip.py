"""What one client's part in a round costs on its device, in simulated seconds and joules."""

from dataclasses import dataclass

from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.costs.work import token_flops
from comigs.federation.devices import profile_of


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
    config: RunConfig,
    client: int,
    bytes_down: float,
    bytes_up: float,
    tokens: float,
    router_tokens: float,
    evaluated: float,
) -> Trip:
    """One client's part in a round.

    Args:
        config: with `devices.profiles`.
        bytes_down, bytes_up: what the device fetches and sends.
        tokens, router_tokens: that its experts and its routers train on.
        evaluated: tokens of evaluations that belong to the method.
    """
    device = profile_of(config, client)
    assert device is not None
    cost = token_flops(config, client)
    flops = tokens * cost.expert + router_tokens * cost.router + evaluated * cost.forward
    compute = flops / device.flops[own(config.model.dtype, client)]
    return Trip(
        device.latency + bytes_down / device.down,
        compute,
        device.latency + bytes_up / device.up,
        device.watts * compute,
    )
