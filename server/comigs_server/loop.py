"""The round loop: resume, train, save; and the final evaluation."""

from pathlib import Path

from flwr.serverapp import Grid

from comigs.config.strategies import find_strategy
from comigs.errors import Stopped
from comigs.federation.run import Run
from comigs.federation.stopping import over
from comigs.local.round import start_of
from comigs.store.chosen import RoundChosen
from comigs.store.events import Ended, Started
from comigs.store.state import write_state
from comigs_server.buffered import ask_again
from comigs_server.combine.edges import AtEdges
from comigs_server.combine.rule import Rule, make_rule
from comigs_server.evaluation import evaluate
from comigs_server.fleet.mail import Mail
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.resume import Progress, nodes_of_the_run, resume_point, tested_progress
from comigs_server.round import train_round
from comigs_server.secret import server_secret
from comigs_server.steps import Round


def run_rounds(grid: Grid, run: Run, folder: Path, journal: Journal) -> None:
    """Run or continue a federation until its last round, or `stop`, and evaluate every client.

    Args:
        grid: Flower's way to the clients.
        folder: the run folder; the server's checkpoints go to `folder/server`.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer; the last good round is saved.
        Stopped: a watcher asked for it.
    """
    config, clients = run.config, Registry(grid, run)
    clients.nodes = nodes_of_the_run(folder / "server")
    clients.wait(journal.tell)
    progress = resume_point(config, folder / "server", clients, journal)
    names = [clients.names[i] for i in sorted(clients.names)]
    rounds = config.rounds if run.method.trains else 0
    journal.write(Started(run.method.name, names, rounds, progress.round))
    if config.privacy.mechanism != "none":
        progress.secret = server_secret(folder / "server")
    rule: Rule = make_rule(run, progress.secret)
    if config.server.tiers is not None:
        rule = AtEdges(run, rule)
    rule.restore(progress.memory)
    if find_strategy(config.server.strategy).from_start and not progress.shared:
        progress.shared = start_of(run)
    mail = Mail(grid) if config.server.mode == "buffered" and run.devices is None else None
    ask_again(Round(grid, run, clients, progress, rule, journal, progress.round + 1, mail))
    while progress.round < rounds and not over(config.stop, progress.watched):
        train_round(grid, run, clients, progress, rule, journal, mail)
        progress.average(config.train.swa)
        progress.nodes = clients.nodes
        tensors = progress.tensors() | {"strategy": rule.memory()}
        kept = {part: named for part, named in tensors.items() if named or part == "shared"}
        meta, best = progress.meta(config), progress.watched.best
        write_state(folder / "server", progress.round, kept, meta, best)
        if journal.stop and progress.round < rounds and not over(config.stop, progress.watched):
            raise Stopped(f"{journal.stop}; the state of round {progress.round} is saved")
    if rounds and config.stop.patience is not None:
        journal.write(_chosen(run, progress))
    evaluate(grid, run, clients, tested_progress(config, folder / "server", progress), journal)
    journal.write(Ended(progress.seconds))


def _chosen(run: Run, progress: Progress) -> RoundChosen:
    watched, stop = progress.watched, run.config.stop
    return RoundChosen(
        tested=watched.tested(progress.round),
        trained=progress.round,
        rounds=run.config.rounds,
        metric=stop.metric,
        patience=stop.patience or 0,
        waited=watched.waited,
        best=watched.value,
    )
