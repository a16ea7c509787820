"""Telling the SuperLink the devices' public keys, through Flower's own command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comigs.deploy.fleet import Device, load_fleet
from comigs.deploy.project import device_folder
from comigs.errors import ComigsError

KNOWN = "Public key already in use"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


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
            reason = " ".join(str(told.get("error-message", "no reason given")).split())
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
    """The answer of `flwr supernode ...`; its exit code says nothing."""
    here = str(Path(sys.executable).parent)
    program = shutil.which("flwr", path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    if program is None:
        raise ComigsError("the command flwr is not there; install comigs with its dependencies")
    done = subprocess.run(
        [program, "supernode", *arguments, "--format", "json"],
        env=os.environ | QUIET | {"FLWR_HOME": str((folder / "flwr").resolve())},
        capture_output=True,
        text=True,
    )
    start = done.stdout.find("{")
    try:
        return json.loads(done.stdout[start:] if start >= 0 else "")
    except ValueError:
        return {"error-message": (done.stderr or done.stdout).strip() or "no answer"}
