"""A client's model as it stands at the end of a run."""

from pathlib import Path

from peft import PeftModel

from comigs.errors import BadInput
from comigs.federation.clients import own_model_of
from comigs.federation.run import Client
from comigs.mixture.adapters import init_adapters, load_adapter_tensors
from comigs.store.state import read_state, saved_rounds, state_root


def final_model(client: Client, folder: Path) -> PeftModel:
    """Return the model that the client's final evaluation tested.

    Raises:
        BadInput: when the client has not been evaluated yet.
    """
    if not client.method.trains:
        model = own_model_of(client)
        init_adapters(model, client.config.seed, client.number)  # B is 0: the base model as it is
        return model
    root = state_root(folder, client.number) / "final"
    rounds = saved_rounds(root)
    if not rounds:
        raise BadInput(f"{folder} is not finished yet; comigs run --resume {folder}")
    tensors, meta = read_state(root, rounds[-1])
    model = own_model_of(client, meta.get("rank"))
    load_adapter_tensors(model, tensors["tensors"])
    return model
