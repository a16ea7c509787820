"""Flower's own command line, quiet, and its answers as JSON."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from comigs.errors import ComigsError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "COLUMNS": "1000",  # a line is a line
}


def ask_flwr(*arguments: str, home: Path | None = None) -> dict[str, Any]:
    """What the command answers; its exit code says nothing.

    Args:
        home: FLWR_HOME of the command; None: this process's own.

    Returns:
        The answer; without "success", an "error-message" on one line.

    Raises:
        ComigsError: the command is not there.
    """
    command = [program(), *arguments, "--format", "json"]
    own = {"FLWR_HOME": str(home)} if home else {}
    done = subprocess.run(
        command, env=os.environ | QUIET | own, capture_output=True, text=True, check=False
    )
    start = done.stdout.find("{")
    try:
        answer: dict[str, Any] = json.loads(done.stdout[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        answer = {}
    if not answer.get("success"):
        reason = answer.get("error-message") or done.stderr or done.stdout or "no answer"
        answer["error-message"] = " ".join(str(reason).split())
    return answer


def program() -> str:
    """Flower's command, of this Python environment if it is there.

    Raises:
        ComigsError: it is not installed.
    """
    here = str(Path(sys.executable).parent)
    found = shutil.which("flwr", path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    if found is None:
        raise ComigsError("the command flwr is not there; install comigs with its dependencies")
    return found
