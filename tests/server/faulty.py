"""The ClientApp with faults, importable by Ray workers: one fault in each of rounds 1 to 3."""

import os
import signal
import time

import clients.app
from clients.app import app
from comigs.local import train_round

__all__ = ["app"]

FAULTS = {(1, 0): "die", (2, 1): "raise", (3, 2): "hang"}  # (round, client)


def train_with_faults(config, client, number, *rest):
    match FAULTS.get((number, client)):
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RuntimeError("no\npower")
        case "hang":
            time.sleep(3600)
    return train_round(config, client, number, *rest)


clients.app.train_round = train_with_faults
