"""A client's model as it stands at the end of a run."""

from pathlib import Path

from peft import PeftModel

from comigs.adapters import adapter_parameters, load_adapter_tensors
from comigs.config import RunConfig
from comigs.errors import BadInput
from comigs.local import restore, state_root
from comigs.methods import find_method
from comigs.state import read_state, saved_rounds


def final_model(config: RunConfig, folder: Path, client: int) -> PeftModel:
    """Return the client's private tensors with the last aggregated shared ones.

    Raises:
        BadInput: when the run has not saved a round yet.
    """
    rounds = saved_rounds(folder / "server")
    if not rounds:
        raise BadInput(f"{folder} has no finished round yet; comigs run --resume {folder}")
    shared, meta = read_state(folder / "server", rounds[-1])
    state_round = meta["client_rounds"].get(str(client), 0)
    model, _, _ = restore(config, client, state_root(folder, client), state_round)
    mask = find_method(config.method).shares
    mine = {name for name in adapter_parameters(model) if mask(name)}
    load_adapter_tensors(model, {n: t for n, t in shared["shared"].items() if n in mine})
    return model
