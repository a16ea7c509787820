"""The Flower ServerApp behind a SuperLink.

It keeps its runs in $COMIGS_RUNS (default ~/.comigs/runs), one folder each, and tells what happens
in its log: to people, and in lines that `comigs.app.submission` reads on the other side. The latter
hold a word that no client knows.
"""

import hashlib
import json
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from comigs.heap import importing

with importing():
    from comigs.config.load import load_config, write_config
    from comigs.errors import ComigsError
    from comigs.federation.run import resolve
    from comigs.store.eventjson import to_line
    from comigs.store.events import Event
    from comigs.store.passing import Broke, Opened
    from comigs.track.progress import Progress
    from comigs_server.journal import Journal
    from comigs_server.loop import run_rounds
    from comigs_server.secret import server_secret

EVENT = "comigs-event "  # starts a line of the log that holds an event as JSON

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or continue, the federation that the run config describes (`config`: JSON)."""
    run = resolve(load_config(json.loads(str(context.run_config["config"]))))
    config = run.config
    if config.flower.run is None:
        raise ComigsError("flower.run is null; give the run a name of its own")
    folder = runs_folder() / config.flower.run
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_config(config, folder)
    show, mark = Progress(), EVENT + channel(folder)

    def tell(event: Event) -> None:
        show.event(event)
        print(f"{mark} {to_line(event)}", end="", flush=True)

    tell(Opened())
    try:
        run_rounds(grid, run, folder, Journal(folder, tell))
    except ComigsError as error:
        tell(Broke(str(error)))
        raise


def channel(folder: Path) -> str:
    """A word that no client knows, in every line of events: what clients say is in the log, too.

    The first line of a run tells it, before any client is asked; it stays when the run goes on.
    """
    return hashlib.sha256(f"events {server_secret(folder / 'server')}".encode()).hexdigest()[:32]


def runs_folder() -> Path:
    """Where this machine's ServerApp keeps its runs."""
    return Path(os.environ.get("COMIGS_RUNS", "~/.comigs/runs")).expanduser()
