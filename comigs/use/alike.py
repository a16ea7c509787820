"""What the clients of runs have learnt in common, for the page about them."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from comigs.errors import BadInput, ComigsError
from comigs.evaluation.similarity import cosines
from comigs.report.page.alike import Alike, Likeness
from comigs.report.page.run import Run, load_run
from comigs.store.state import DamagedState, newest_state, read_state, state_root

KINDS = ("specialist", "generalist")
MOST = 40  # clients


def compare_experts(folders: Sequence[Path]) -> Alike:
    """Compare the experts of each run's clients, the first forty, as their last training left them.

    That is before the averaging of the round whose models were tested; averaged ones are the same.
    """
    found: dict[Path, list[Likeness]] = {}
    missing = []
    for folder in folders:
        run = load_run(folder)
        if len(run.clients) < 2:
            continue
        try:
            states = _states(run)
        except ComigsError as error:
            missing.append(str(error))
            continue
        layers = {kind: cosines(states, kind) for kind in KINDS}
        found[folder] = [
            Likeness(
                kind,
                run.clients[:MOST],
                {layer + 1: matrix.tolist() for layer, matrix in layers[kind].items()},
            )
            for kind in KINDS
            if layers[kind]
        ]
        if (more := len(run.clients) - MOST) > 0:
            missing.append(f"{run.label}: {more} of {len(run.clients)} clients")
    return Alike(found, missing)


def _states(run: Run) -> list[dict[str, Tensor]]:
    """Each client's adapter tensors; {} of one that has not trained."""
    server = run.folder / "server"
    if (run.config.get("engine") or {}).get("name") == "flower":
        raise BadInput(f"{run.folder}: its clients' experts are on their devices")
    try:
        meta = read_state(server, run.chosen.tested if run.chosen else run.done)[1]
    except DamagedState:
        newest = newest_state(server)
        if newest is None:
            raise BadInput(f"{run.folder}: it has no whole round") from None
        meta = newest[2]
    rounds = meta["client_rounds"]
    return [
        read_state(state_root(run.folder, i), rounds[str(i)])[0]["tensors"]
        if rounds.get(str(i))
        else {}
        for i in range(len(run.clients[:MOST]))
    ]
