"""The files of a project that are neither keys nor the compose file."""

import json
from pathlib import Path

import comigs

GITIGNORE = """\
# Keys, the clients' text, private state and results stay on this machine.
/ca/
/devices/
/models/
/server/
/flwr/*
!/flwr/config.toml
"""

# The bundle holds no code: code in it would shadow the comigs that is installed in the image.
BUNDLE = """\
[project]
name = "comigs-app"
version = "{version}"
description = "Starts the comigs that is installed on the server and on the devices"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "comigs"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

# Given for each run, by run.toml.
[tool.flwr.app.config]
config = ""
run-folder = ""
"""

CONNECTION = """\
[superlink]
default = "comigs"

[superlink.comigs]
address = "127.0.0.1:{port}"
root-certificates = {certificate}
"""

RUN = """\
# What `flwr run app --run-config run.toml` runs. Every run needs a folder of its own; the same
# folder and configuration again go on with an interrupted run.
run-folder = "/runs/first"

# Settings of comigs that differ from its defaults, as JSON.
config = '''
{config}
'''
"""

SETTINGS = {
    "name": "first",
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
    texts = {
        ".gitignore": GITIGNORE,
        "app/pyproject.toml": BUNDLE.format(version=comigs.__version__),
        "flwr/config.toml": CONNECTION.format(port=port, certificate=certificate),
        "run.toml": RUN.format(config=json.dumps(SETTINGS, indent=2)),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
