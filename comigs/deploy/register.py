"""Telling the SuperLink the devices' public keys, through Flower's own command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comigs.deploy.fleet import Device, load_fleet
from comigs.deploy.flowercli import ask_flwr
from comigs.deploy.project import device_folder
from comigs.errors import ComigsError

KNOWN = "Public key already in use"


def register(folder: Path) -> Iterator[tuple[Device, str]]:
    """Register every device of a project, and take back what an earlier key of it was known as.

    Yields:
        Each device, and what was done.

    Raises:
        BadInput: when the folder is not a project.
        ComigsError: when the SuperLink cannot be reached, or refuses.
    """
    for device in load_fleet(folder).devices:
        keys = device_folder(folder, device) / "keys"
        told = _flwr(folder, "register", str(keys / "node.pub"), "--name", device.name)
        if not told.get("success"):
            reason = told["error-message"]
            if KNOWN not in reason:
                raise ComigsError(
                    f"{device.name} could not be registered ({reason}); is the SuperLink up? "
                    "start it with: docker compose up -d"
                )
            yield device, "was registered before"
            continue
        last = keys / "node.id"
        if last.is_file():
            _flwr(folder, "unregister", last.read_text().strip())
        last.write_text(f"{told['node-id']}\n")
        last.chmod(0o600)
        yield device, f"registered as node {told['node-id']}"


def _flwr(folder: Path, *arguments: str) -> dict[str, Any]:
    return ask_flwr("supernode", *arguments, home=(folder / "flwr").resolve())
