"""Looking a deployment over: what is missing, too open, or about to expire."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from comigs.deploy.fleet import load_fleet
from comigs.deploy.keys import expiry
from comigs.deploy.project import device_folder
from comigs.errors import BadInput
from comigs.federation.policy import FILE, read_policy

SOON = 30  # days


def problems(folder: Path) -> list[str]:
    """One line per problem of a project; empty when there is none.

    Raises:
        BadInput: when the folder is not a project.
    """
    fleet = load_fleet(folder)
    keys = [folder / "ca" / name for name in ("ca.crt", "ca.key")]
    own = folder / "server" / "keys"
    keys += [own / name for name in ("server.crt", "server.key", "superexec.secret")]
    policies = []
    for device in fleet.devices:
        own = device_folder(folder, device) / "keys"
        policies.append(device_folder(folder, device) / "data" / FILE)
        keys += [own / name for name in ("node.key", "node.pub", "superexec.secret")]
    found = [f"{path} is missing" for path in keys if not path.is_file()]
    found += [line for path in keys if path.is_file() for line in _too_open(path)]
    for path in keys:
        if path.suffix == ".crt" and path.is_file():
            try:
                found += _expiring(path)
            except BadInput as error:
                found.append(str(error))
    found += [line for path in policies for line in _not_a_policy(path)]
    connection = folder / "flwr" / "config.toml"
    authority = str((folder / "ca" / "ca.crt").resolve())
    if not connection.is_file() or authority not in connection.read_text(encoding="utf-8"):
        found.append(f"{connection} does not name {authority}; write it there")
    return found


def _too_open(path: Path) -> Iterator[str]:
    for place, right in ((path, 0o600), (path.parent, 0o700)):
        if (mode := place.stat().st_mode & 0o777) & ~right:
            yield f"{place} has mode {mode:04o}; chmod {right:o} it"


def _not_a_policy(path: Path) -> Iterator[str]:
    try:
        read_policy(path)
    except BadInput as error:
        yield str(error)


def _expiring(path: Path) -> Iterator[str]:
    days = (expiry(path) - datetime.now(UTC)).days
    if days < 0:
        yield f"{path} has expired; renew it with comigs deploy rotate"
    elif days < SOON:
        yield f"{path} expires in {days} days; renew it with comigs deploy rotate"
