"""The files of a project that are neither keys nor the compose file."""

import json
from pathlib import Path

import yaml

from comigs.flowerapp import BUNDLE

GITIGNORE = """\
# Keys, the clients' text, private state and results stay on this machine.
/ca/
/devices/
/models/
/server/
/flwr/*
!/flwr/config.toml
"""

CONNECTION = """\
[superlink]
default = "comigs"

[superlink.comigs]
address = "127.0.0.1:{port}"
root-certificates = {certificate}
"""

RUN = """\
# For `flwr run app --run-config run.toml`: the settings of run.yaml, and a name for the run. The
# same name and settings again go on with an interrupted run.
config = '''
{config}
'''
"""

SETTINGS = {
    "name": "first",
    "engine": {"name": "flower"},
    "model": {"name": "comigs-tiny"},
    "data": {"name": "/data"},
    "experts": {"generalists": 1, "specialists": 1, "rank": 8},
    "router": {"lr": 0.05},
    "rounds": 10,
    "local_steps": 10,
    "batch_size": 8,
}


def write_files(folder: Path, port: int) -> None:
    """Write what a new project needs apart from keys, text and compose.yaml.

    Args:
        folder: of the project.
        port: of the SuperLink on this machine.
    """
    certificate = json.dumps(str((folder / "ca" / "ca.crt").resolve()))
    named = SETTINGS | {"flower": {"run": "first"}}
    texts = {
        ".gitignore": GITIGNORE,
        "app/pyproject.toml": BUNDLE,
        "flwr/config.toml": CONNECTION.format(port=port, certificate=certificate),
        "run.yaml": yaml.safe_dump(SETTINGS, sort_keys=False),
        "run.toml": RUN.format(config=json.dumps(named, indent=2)),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
