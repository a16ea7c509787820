"""What the server knows after a round, and where a run continues."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from comigs.config.load import changed_keys, load_config, to_dict
from comigs.config.settings import RunConfig
from comigs.errors import BadInput, ComigsError
from comigs.federation.stopping import Watched
from comigs.messages.update import mean_with
from comigs.store.events import Damaged
from comigs.store.state import DamagedState, clean, newest_state, read_state, saved_rounds
from comigs_server.combine.accountant import EVERYBODY, Draw
from comigs_server.fleet.registry import Registry
from comigs_server.journal import Journal
from comigs_server.timing.flights import Flight
from comigs_server.timing.late import Late


@dataclass
class Totals:
    """What one client has cost since round 1."""

    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """The server's state after `round`.

    Attributes:
        shared: the aggregated tensors; empty before round 1, when clients use the common start.
        client_rounds: by client id, the round whose saved state the client continues from.
        totals: by client id.
        memory: what the strategy carries from round to round.
        late: by client id, updates that arrive in a later round.
        flying: with `server.mode` buffered, by client id, who is at work.
        past: behind a SuperLink, by round in which one of them began, `shared` as it was then.
        heard: the same, the newest validation perplexity that each client told.
        secret: of the server, where privacy needs one.
        nodes: by client id, the node that was first to be it (behind a SuperLink).
        current: ids of clients whose saved state is from the last round and knows what was sent.
        resting: ids of clients that do not want the shared tensors now (`Method.rests`).
        change: with `payload.down`, the last round's step of `shared`, packed.
        unsent: by name, what packing has taken off so far.
        draws: per round, how many clients could be drawn for it, and how many were.
        watched: with `stop`, what evaluations have told.
        mean: with `train.swa`, of `shared` over rounds; averaged: over how many.
        seconds: wall time of all rounds; sim_seconds and sim_joules: the same on the devices.
    """

    round: int = 0
    shared: dict[str, Tensor] = field(default_factory=dict)
    client_rounds: dict[int, int] = field(default_factory=dict)
    totals: dict[int, Totals] = field(default_factory=dict)
    seconds: float = 0.0
    memory: dict[str, Tensor] = field(default_factory=dict)
    late: dict[int, Late] = field(default_factory=dict)
    flying: dict[int, Flight] = field(default_factory=dict)
    past: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    heard: dict[int, float] = field(default_factory=dict)
    sim_seconds: float = 0.0
    sim_joules: float = 0.0
    secret: str = ""
    draws: list[Draw] = field(default_factory=list)
    nodes: dict[int, int] = field(default_factory=dict)
    current: set[int] = field(default_factory=set)
    resting: set[int] = field(default_factory=set)
    change: dict[str, Tensor] = field(default_factory=dict)
    unsent: dict[str, Tensor] = field(default_factory=dict)
    watched: Watched = field(default_factory=Watched)
    mean: dict[str, Tensor] = field(default_factory=dict)
    averaged: int = 0

    @property
    def at_work(self) -> set[int]:
        """Ids of clients that an earlier round still waits for; they are not asked meanwhile."""
        return set(self.flying) | set(self.late)

    def since(self, client: int, number: int) -> int:
        """The round in which a client began whose update comes in round `number`."""
        flight = self.flying.get(client)
        return number if flight is None else flight.since

    def before(self, number: int) -> "Progress":
        """What the clients knew that began in round `number` and are still at work."""
        if number not in self.past:
            return self
        return replace(self, round=number - 1, shared=self.past[number], current=set())

    def average(self, first: int | None) -> None:
        """Let the mean over rounds from `first` go on by the one that is done."""
        if first is not None and self.round >= first and self.shared:
            self.averaged += 1
            self.mean = mean_with(self.mean, self.shared, self.averaged)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of the server's checkpoint, apart from the strategy's."""
        late = {f"{i}/{n}": t for i, u in self.late.items() for n, t in u.tensors.items()}
        flying = {f"{i}/{n}": t for i, f in self.flying.items() for n, t in f.change.items()}
        past = {f"{r}/{n}": t for r, named in self.past.items() for n, t in named.items()}
        packed = {"change": self.change, "unsent": self.unsent} if self.unsent else {}
        mean = {"mean": self.mean} if self.mean else {}
        under_way = {"late": late, "flying": flying, "past": past}
        return {"shared": self.shared, **under_way, **packed, **mean}

    def meta(self, config: RunConfig) -> dict[str, Any]:
        """The JSON part of the server's checkpoint."""
        more: dict[str, Any] = (
            {} if self.watched == Watched() else {"watched": _to_json(self.watched)}
        )
        if self.averaged:
            more["averaged"] = self.averaged
        if self.past:
            more["past"] = sorted(self.past)
        if config.server.mode == "buffered":
            rest = {str(i): [f.weight, f.due, f.since, f.lost] for i, f in self.flying.items()}
            more |= {"flying": rest, "heard": {str(i): v for i, v in self.heard.items()}}
        return more | {
            "config": to_dict(config),
            "client_rounds": {str(i): r for i, r in self.client_rounds.items()},
            "totals": {str(i): asdict(t) for i, t in self.totals.items()},
            "seconds": self.seconds,
            "sim": [self.sim_seconds, self.sim_joules],
            "draws": self.draws,
            "nodes": {str(i): node for i, node in self.nodes.items()},
            "current": sorted(self.current),
            "resting": sorted(self.resting),
            "late": {str(i): [u.weight, u.due] for i, u in self.late.items()},
        }


def resume_point(config: RunConfig, root: Path, clients: Registry, journal: Journal) -> Progress:
    """Return the newest saved round that the server and all its clients still hold intact.

    Args:
        root: the server's checkpoint folder.

    Raises:
        BadInput: when the checkpoint was written with another configuration.
        ComigsError: when there are checkpoints but none is usable.
    """
    saved = saved_rounds(root)
    damaged: list[tuple[int, str]] = []
    for number in reversed(saved):
        try:
            progress = load_progress(config, root, number)
            _check_states(progress.client_rounds, clients)
            if number == saved[-1]:
                _check_best(progress.watched, root, clients)
        except DamagedState as error:
            damaged.append((number, str(error)))
            continue
        # a kill may have come before the last write had done it
        clean(root, saved[-1], progress.watched.best)
        journal.rewind(number)
        for lost, reason in damaged:
            journal.write(Damaged(lost, reason, number))
        return progress
    if saved:
        raise ComigsError(
            f"none of the saved rounds {saved} in {root.parent} is intact; start anew with another "
            "--out folder"
        )
    journal.rewind(0)
    return Progress()


def nodes_of_the_run(root: Path) -> dict[int, int]:
    """By client id, the node that was first to be it, as far as the newest good checkpoint says."""
    newest = newest_state(root)
    nodes = newest[2].get("nodes", {}) if newest else {}
    return {int(client): node for client, node in nodes.items()}


def load_progress(config: RunConfig, root: Path, number: int) -> Progress:
    tensors, meta = read_state(root, number)
    before = load_config(meta["config"])
    longer = before.rounds < config.rounds and config.engine.name != "flower"
    if longer:  # since; devices behind a SuperLink hold to what they agreed to
        before = replace(before, rounds=config.rounds, extended=config.extended)
    if changed := changed_keys(before, config):
        raise BadInput(
            f"this run was started with another {changed[0]}; a resumed run keeps its configuration"
        )
    sim, past = meta.get("sim", [0.0, 0.0]), tensors.get("past", {})
    return Progress(
        number,
        tensors["shared"],
        {int(i): r for i, r in meta["client_rounds"].items()},
        {int(i): Totals(**t) for i, t in meta["totals"].items()},
        meta["seconds"],
        tensors.get("strategy", {}),
        {
            int(i): Late(_of(i, tensors.get("late", {})), weight, due)
            for i, (weight, due) in meta.get("late", {}).items()
        },
        flying={
            int(i): Flight(_of(i, tensors.get("flying", {})), *rest)
            for i, rest in meta.get("flying", {}).items()
        },
        past={r: _of(str(r), past) for r in meta.get("past", [])},
        heard={int(i): value for i, value in meta.get("heard", {}).items()},
        sim_seconds=sim[0],
        sim_joules=sim[1],
        nodes={int(i): node for i, node in meta.get("nodes", {}).items()},
        draws=[(there, drawn) for there, drawn in meta.get("draws", [EVERYBODY] * number)],
        current=set(meta.get("current", [])),
        resting=set(meta.get("resting", [])),
        change=tensors.get("change", {}),
        unsent=tensors.get("unsent", {}),
        watched=watched_in(meta),
        mean=tensors.get("mean", {}),
        averaged=meta.get("averaged", 0),
    )


def tested_progress(config: RunConfig, root: Path, progress: Progress) -> Progress:
    """The state whose models are tested after the last round: of the best one, with `stop`.

    What clients have cost is counted to the end. The mean over rounds, with `train.swa`, is sent
    whole: clients do not know what it differs from.

    Raises:
        DamagedState: the checkpoint of the best round is damaged.
    """
    number = progress.watched.tested(progress.round)
    if number != progress.round:
        progress = replace(load_progress(config, root, number), totals=progress.totals)
    if progress.mean:
        return replace(progress, shared=progress.mean, current=set())
    return progress


def _to_json(watched: Watched) -> dict[str, Any]:
    lists = {"newest": list(watched.newest.items()), "states": list(watched.states.items())}
    return asdict(watched) | lists


def watched_in(meta: Mapping[str, Any]) -> Watched:
    """What evaluations have told, by the JSON part of a checkpoint."""
    if (told := meta.get("watched")) is None:
        return Watched()
    return Watched(**told | {key: dict(told[key]) for key in ("newest", "states")})


def _of(number: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one client, or round, of several."""
    start = f"{number}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _check_best(watched: Watched, root: Path, clients: Registry) -> None:
    """The best round is there as a whole after the newest one; before, it may not have been it."""
    if watched.best is not None:
        read_state(root, watched.best)
        _check_states(watched.states, clients)


def _check_states(rounds: Mapping[int, int], clients: Registry) -> None:
    for client in clients.require(rounds):
        number = rounds[client.id]
        if number not in client.rounds:
            raise DamagedState(f"client {client.name} has no intact state of round {number}")
