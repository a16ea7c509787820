"""A client's model as it stands at the end of a run, or after the last whole round so far."""

import logging
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel

from comigs.errors import BadInput
from comigs.federation.clients import own_model_of
from comigs.federation.run import Client
from comigs.mixture.adapters import init_adapters, load_adapter_tensors
from comigs.store.state import newest_state, read_state, saved_rounds, state_root


@dataclass(frozen=True)
class Standing:
    """Which of a client's saved states its model is.

    Attributes:
        root: where the state is.
        round: that it is keyed by.
        finished: whether it is the model of the final evaluation; else the client's own training
            in that round left it, before what the server made of the round.
    """

    root: Path
    round: int
    finished: bool


def standing(client: Client, folder: Path) -> Standing:
    """The state that the client's final evaluation tested; of an unfinished run the newest whole.

    Raises:
        BadInput: the client has none here.
    """
    root = state_root(folder, client.number)
    if rounds := saved_rounds(root / "final"):
        return Standing(root / "final", rounds[-1], True)
    if client.run.config.engine.name == "flower":
        raise BadInput(f"{folder}: its clients' models are on their devices")
    newest = newest_state(folder / "server")
    if newest is None:
        raise BadInput(
            f"{folder} is not finished yet, and has no whole round; comigs run --resume {folder}"
        )
    number = newest[2]["client_rounds"].get(str(client.number))
    if number is None:
        raise BadInput(
            f"{folder} is not finished yet, and client {client.number} has not trained in it; "
            f"comigs run --resume {folder}"
        )
    return Standing(root, number, False)


def final_model(client: Client, folder: Path) -> PeftModel:
    """Return the model that the client's final evaluation tested.

    Of an unfinished run it is that of the client's last whole round, which a warning says.

    Raises:
        BadInput: as `standing`.
    """
    if not client.method.trains:
        model = own_model_of(client)
        init_adapters(model, client.config.seed, client.number)  # B is 0: the base model as it is
        return model
    found = standing(client, folder)
    if not found.finished:
        logging.getLogger("comigs").warning(
            "%s is not finished: client %d's model is that of round %d of %d, before its averaging",
            folder,
            client.number,
            found.round,
            client.config.rounds,
        )
    tensors, meta = read_state(found.root, found.round)
    model = own_model_of(client, meta.get("rank"))
    load_adapter_tensors(model, tensors["tensors"])
    return model
