"""The Flower ServerApp: the same in every engine."""

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from comigs.configload import dump_yaml, load_config
from server.journal import Journal
from server.loop import run_rounds

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config describes (`config`: JSON, `run-folder`: path)."""
    folder = Path(str(context.run_config["run-folder"]))
    config = load_config(json.loads(str(context.run_config["config"])))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.yaml").exists():
        (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    run_rounds(grid, config, folder, Journal(folder))
