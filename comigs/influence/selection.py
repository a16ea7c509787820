"""The best share of a client's training blocks, chosen once, on the device (`data.select`).

What was chosen is part of the client's state, and of nothing that is sent.
"""

import math
from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from torch import Tensor

from comigs.data.tokens import ClientData
from comigs.federation.run import Client
from comigs.influence.blocks import blocks_of, influences
from comigs.influence.classifier import likeness
from comigs.influence.rules import hyperinf
from comigs.store.state import read_state

CHOSEN = "chosen"  # the part of a client's state that holds the numbers of its blocks


def best(scores: Tensor, keep: float) -> Tensor:
    """Numbers, in order, of the ceil(keep n) lowest of n scores; of equal ones the first."""
    count = math.ceil(keep * len(scores))
    return scores.argsort(stable=True)[:count].sort().values


def chosen_of(client: Client, root: Path, state_round: int) -> dict[str, Tensor]:
    """What the client has chosen by `state_round`: {"blocks": numbers}, or nothing yet."""
    if client.config.data.select.by is None or state_round == 0:
        return {}
    return read_state(root, state_round)[0].get(CHOSEN, {})


def choose(
    client: Client, model: PeftModel, data: ClientData, steps_done: int
) -> dict[str, Tensor]:
    """Choose, if the client has trained for `data.select.after` steps.

    Args:
        model: the client's as it begins the round.
    """
    select, length = client.config.data.select, client.config.data.seq_len
    if select.by is None or steps_done < select.after:
        return {}
    blocks, valid = blocks_of(data.train, length), blocks_of(data.valid, length)
    if select.by == "classifier":
        scores = likeness(blocks, valid)
    else:
        scores = influences(client, model, hyperinf, blocks, valid)
    return {"blocks": best(scores, select.keep)}


def narrowed(client: Client, data: ClientData, chosen: dict[str, Tensor]) -> ClientData:
    """The client's data with the chosen blocks alone to train on; all of it without a choice."""
    if not chosen:
        return data
    blocks = blocks_of(data.train, client.config.data.seq_len)
    return replace(data, train=blocks[chosen["blocks"]])
