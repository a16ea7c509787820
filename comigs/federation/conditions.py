"""Devices as they are in one round: faster or slower than usual, and on a link with others."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch

from comigs.config.devices import SiteConfig
from comigs.config.profiles import Profile
from comigs.federation.run import Run
from comigs.seeds import generator


def devices_in(run: Run, number: int, ids: Iterable[int]) -> dict[int, Profile]:
    """The devices of those who take part in round `number`, as they are in it; {} without devices.

    Speed and network are the profile's, each times a log-normal factor with median 1 and the
    profile's sigma, drawn from (seed, client, round). A device then has its own rate, or, if that
    is less, an equal part of its site's link: link / number of the site's devices in `ids`. It has
    that part for all of the round, as if they all transferred at the same time.
    """
    found = {}
    for i in ids:
        if (profile := run.profile(i)) is None:
            return {}
        found[i] = _of_this_round(run, i, number, profile)
    crowd = Counter(device.site for device in found.values() if device.site is not None)
    sites = run.config.devices.sites
    for i, device in found.items() if crowd else ():
        if device.site is not None:
            found[i] = _sharing(device, sites[device.site], crowd[device.site])
    return found


def _of_this_round(run: Run, client: int, number: int, profile: Profile) -> Profile:
    if not profile.speed_jitter and not profile.network_jitter:
        return profile
    rng = generator(run.config.seed, client, number, "jitter of the device")
    drawn = torch.randn(2, generator=rng, dtype=torch.float64).tolist()
    speed = math.exp(profile.speed_jitter * drawn[0])
    network = math.exp(profile.network_jitter * drawn[1])
    return replace(
        profile,
        flops={dtype: rate * speed for dtype, rate in profile.flops.items()},
        up=profile.up * network,
        down=profile.down * network,
    )


def _sharing(device: Profile, site: SiteConfig, among: int) -> Profile:
    up, down = (math.inf if rate is None else rate / among for rate in (site.up, site.down))
    return replace(device, up=min(device.up, up), down=min(device.down, down))
