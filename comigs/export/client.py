"""One client's experts, in a folder that others load."""

from pathlib import Path

from comigs.errors import BadInput
from comigs.mixture.adapters import refuse_corrections, save_experts
from comigs.mixture.peftfolder import save_adapters
from comigs.use.generate import open_client


def export_experts(folder: Path, client: int, to: Path, generalist_only: bool) -> None:
    """Write the client's experts to `to`, one PEFT folder per expert.

    Args:
        generalist_only: leave out what is the client's own: specialists and routers.

    Raises:
        BadInput: when `to` exists, or the client has no generalist that can be exported.
    """
    if to.exists() or to.is_symlink():
        raise BadInput(f"{to} exists already; give a new folder")
    _, model = open_client(folder, client)
    if not generalist_only:
        save_experts(model, to)
        return
    names = [name for name in model.peft_config if name.startswith("generalist_")]
    if not names:
        raise BadInput("this method keeps no generalist experts")
    refuse_corrections(model)
    save_adapters(model, to, names)
