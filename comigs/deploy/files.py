"""The files of a project that are neither keys nor the compose file."""

import json
from pathlib import Path

import yaml

from comigs.deploy.flowerapp import BUNDLE

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

POLICY = """\
# What this device allows, whatever a server asks. A line that is left out has its default.
methods: null      # names of `comigs methods`, e.g. [comigs, fedavg]; null: all
require: none      # protection of what is sent: none, secagg, dp (clipped here), or either
threshold: 2       # of secagg: fewest clients that may restore a sum; always more than half
clip: null         # of dp: greatest privacy.clip; null: any
data: null         # folders of text; null: the one that holds this file
models: [/models]  # folders of base models, or hub ids; bundled ones are always allowed
rounds: 100000     # of a run
steps: 10000       # local steps, or router steps, of a round
tokens: 1.0e+9     # of a round: steps x batch_size x data.seq_len
threads: {threads}
hours: 24          # for one message
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


def write_bundle(folder: Path) -> None:
    """Write the app bundle of this comigs into the project's `folder`."""
    (folder / "app").mkdir(exist_ok=True)
    (folder / "app" / "pyproject.toml").write_text(BUNDLE, encoding="utf-8")


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
        "flwr/config.toml": CONNECTION.format(port=port, certificate=certificate),
        "run.yaml": yaml.safe_dump(SETTINGS, sort_keys=False),
        "run.toml": RUN.format(config=json.dumps(named, indent=2)),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
