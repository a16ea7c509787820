"""The round loop: resume, train, save; and the final evaluation."""

from pathlib import Path

from flwr.serverapp import Grid

from comigs.config.settings import RunConfig
from comigs.costs.traffic import FROM_THE_START
from comigs.local.round import start_of
from comigs.methods import find_method
from comigs.store.state import write_state
from comigs_server.combine.strategy import make_strategy, restore_memory, strategy_memory
from comigs_server.evaluation import evaluate
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.resume import nodes_of_the_run, resume_point
from comigs_server.round import train_round
from comigs_server.secret import server_secret


def run_rounds(grid: Grid, config: RunConfig, folder: Path, journal: Journal) -> None:
    """Run or continue a federation until its last round and evaluate every client.

    Args:
        grid: Flower's way to the clients.
        folder: the run folder; the server's checkpoints go to `folder/server`.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer; the last good round is saved.
    """
    clients = Registry(grid, config)
    clients.nodes = nodes_of_the_run(folder / "server")
    clients.wait(journal.watch)
    progress = resume_point(config, folder / "server", clients, journal)
    names = [clients.names[i] for i in sorted(clients.names)]
    rounds = config.rounds if find_method(config.method).trains else 0
    journal.write("start", method=config.method, clients=names, rounds=rounds, round=progress.round)
    if config.privacy.mechanism != "none":
        progress.secret = server_secret(folder / "server")
    strategy = make_strategy(config, progress.secret)
    restore_memory(strategy, progress.memory)
    if config.server.strategy in FROM_THE_START and not progress.shared:
        progress.shared = start_of(config)
    while progress.round < rounds:
        train_round(grid, config, clients, progress, strategy, journal)
        progress.nodes = clients.nodes
        tensors = progress.tensors() | {"strategy": strategy_memory(strategy)}
        kept = {part: named for part, named in tensors.items() if named or part == "shared"}
        write_state(folder / "server", progress.round, kept, progress.meta(config))
    evaluate(grid, config, clients, progress, strategy, journal)
    journal.write("end", seconds=progress.seconds)
