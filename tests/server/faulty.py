"""The ClientApp with faults, importable by Ray workers: one fault in each of rounds 1 to 3."""

import os
import signal
import time

import comigs_clients.app
from comigs.local.round import train_round
from comigs_clients.app import app

__all__ = ["app"]

FAULTS = {(1, 0): "die", (2, 1): "raise", (3, 2): "hang"}  # (round, client)


def train_with_faults(order):
    match FAULTS.get((order.round, order.client.number)):
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RuntimeError("no\npower")
        case "hang":
            time.sleep(3600)
    return train_round(order)


comigs_clients.app.train_round = train_with_faults
