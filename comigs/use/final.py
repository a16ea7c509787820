"""A client's model as it stands at the end of a run."""

from pathlib import Path

from peft import PeftModel

from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.federation.clients import own_model_of
from comigs.methods import find_method
from comigs.mixture.adapters import init_adapters, load_adapter_tensors
from comigs.store.state import read_state, saved_rounds, state_root


def final_model(config: RunConfig, folder: Path, client: int) -> PeftModel:
    """Return the model that the client's final evaluation tested.

    Raises:
        BadInput: when the client has not been evaluated yet.
    """
    if not find_method(config.method).trains:
        model = own_model_of(config, client)
        init_adapters(model, config.seed, client)  # LoRA's B is 0: the base model as it is
        return model
    root = state_root(folder, client) / "final"
    rounds = saved_rounds(root)
    if not rounds:
        raise BadInput(f"{folder} is not finished yet; comigs run --resume {folder}")
    tensors, meta = read_state(root, rounds[-1])
    model = own_model_of(config, client, meta.get("rank"))
    load_adapter_tensors(model, tensors["tensors"])
    return model
