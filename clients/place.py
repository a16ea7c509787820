"""Where a device keeps what belongs to a run."""

from pathlib import Path

from comigs.configflower import FlowerConfig


def run_folder(state_dir: str, run: str | None) -> Path:
    """The folder of the run, for nobody else's eyes; a device behind a SuperLink has many runs.

    Args:
        state_dir: from the node config.
        run: `flower.run`; None in an embedded engine, whose folder has one run only.

    Raises:
        BadInput: the name is not that of a folder.
    """
    folder = Path(state_dir).expanduser()
    if run is not None:
        folder = folder / str(FlowerConfig(run=run).run)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
