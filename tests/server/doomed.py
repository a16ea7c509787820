"""The ClientApp, with a client that waits for its node's end in round 2.

The folder $DOOMED_FOLDER holds `node`, Ray's id of that node; the client tells by the file `here`.
The other node's clients wait for that file, so that there is work left whenever the node comes.
"""

import os
import time
from pathlib import Path

import ray

import comigs_clients.app
from comigs.local.round import train_round
from comigs_clients.app import app

__all__ = ["app"]


def train_or_wait(order):
    folder = Path(os.environ["DOOMED_FOLDER"])
    here = folder / "here"
    doomed = ray.get_runtime_context().get_node_id() == (folder / "node").read_text()
    if order.round == 2 and doomed:
        here.touch()
        time.sleep(60)
    elif order.round == 2:
        for _ in range(1200):
            if here.exists():
                break
            time.sleep(0.05)
    return train_round(order)


comigs_clients.app.train_round = train_or_wait
