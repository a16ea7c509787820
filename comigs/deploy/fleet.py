"""What a deployment consists of: its devices, and the folders of its compose project."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from comigs.config.profiles import Profile, library
from comigs.cores import cores
from comigs.errors import BadInput
from comigs.schema.build import suggest

DEFAULT_MIX = ("laptop", "board", "phone-high")
CORE_FLOPS = 3.375e10  # sustained float32 FLOP/s of one core of the profile `laptop`
LEAST_CPUS = 0.25
FILE = "project.json"
IMAGE_USER = 10001  # of docker/Dockerfile


@dataclass(frozen=True)
class Device:
    """One client of the federation, in its own containers.

    Attributes:
        name: of the client, as its text is called.
        profile: name of its device profile.
        cpus: processor time it gets, in cores of this machine.
        memory: bytes it gets.
    """

    name: str
    profile: str
    cpus: float
    memory: int

    @property
    def slug(self) -> str:
        """The name as it is in names of services and folders."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def threads(self) -> int:
        return max(1, round(self.cpus))


@dataclass(frozen=True)
class Fleet:
    """A deployment.

    Attributes:
        user: uid:gid that the containers run as, and that owns the project's files.
        port: of the SuperLink, on this machine's loopback interface.
        days: lifetime of certificates.
        data: absolute folder, or bundled federation, that the clients' text came from.
        devices: client number i is number i here.
    """

    user: str
    port: int
    days: int
    data: str
    devices: tuple[Device, ...]

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2) + "\n"
        partial = folder / f"{FILE}.tmp"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / FILE)


def load_fleet(folder: Path) -> Fleet:
    """Read a project's description.

    Raises:
        BadInput: when the folder is not a project.
    """
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        devices = tuple(Device(**device) for device in tree.pop("devices"))
        return Fleet(**tree, devices=devices)
    except OSError:
        raise BadInput(f"{folder} holds no {FILE}; make it with comigs deploy init") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{folder / FILE} is damaged ({error})") from None


def make_devices(names: Sequence[str], profiles: str | None) -> tuple[Device, ...]:
    """Give each client a device.

    Args:
        names: of the clients.
        profiles: comma-separated names of profiles, one per client or one for all; None for
            `DEFAULT_MIX`, repeated.

    Raises:
        BadInput: for an unknown profile, or another number of them than there are clients.
    """
    if profiles is None:
        chosen = [DEFAULT_MIX[i % len(DEFAULT_MIX)] for i in range(len(names))]
    else:
        chosen = [name.strip() for name in profiles.split(",")]
        chosen = chosen * len(names) if len(chosen) == 1 else chosen
    if len(chosen) != len(names):
        raise BadInput(
            f"--devices is {profiles!r}, {len(chosen)} profiles; give one for each of the "
            f"{len(names)} clients, or one for all"
        )
    return tuple(make_device(name, profile) for name, profile in zip(names, chosen, strict=True))


def make_device(name: str, profile: str) -> Device:
    """A client's device with the limits that stand for its profile on this machine.

    Raises:
        BadInput: for an unknown profile, or a name without a letter or digit.
    """
    if profile not in library():
        hint = suggest(profile, library()) or f"; known: {', '.join(library())}"
        raise BadInput(f"device profile {profile!r} is unknown{hint}")
    kind = library()[profile]
    device = Device(name, profile, _cpus(kind), kind.memory)
    if not device.slug:
        raise BadInput(f"client name {name!r} has no letter a-z or digit; rename its text")
    return device


def check_names(devices: Sequence[Device]) -> None:
    """Refuse clients that would share one service name.

    Raises:
        BadInput: naming both.
    """
    seen: dict[str, str] = {}
    for device in devices:
        if device.slug in seen:
            raise BadInput(
                f"clients {seen[device.slug]!r} and {device.name!r} would both be "
                f"supernode-{device.slug}; rename one's text"
            )
        seen[device.slug] = device.name


def _cpus(profile: Profile) -> float:
    wanted = profile.flops["float32"] / CORE_FLOPS
    return round(min(max(wanted, LEAST_CPUS), cores()), 2)
