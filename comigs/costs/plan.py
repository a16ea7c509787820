"""What a run will take, before it starts: memory, work, bytes, energy and time.

Everything but the expected time here follows from the configuration alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import cast

from comigs.costs.calibrate import Kind, Speed, kind_of
from comigs.costs.fit import on_its_device, usable
from comigs.costs.memory import Memory, peak_memory
from comigs.costs.traffic import traffic
from comigs.costs.trip import trip
from comigs.costs.work import Parameters, TokenFlops, mean_flops, parameter_counts
from comigs.data.tokens import places
from comigs.evaluation.metrics import OfPeers, find_metric, of_models
from comigs.federation.clients import data_of
from comigs.federation.run import Client, Run
from comigs.federation.selection import takers_of_the_test, wanted


@dataclass(frozen=True)
class Work:
    """Tokens that go through each kind of step (`comigs.costs.work.TokenFlops`)."""

    expert: float = 0
    router: float = 0
    forward: float = 0
    look: float = 0

    def flops(self, per_token: TokenFlops) -> float:
        parts = ("expert", "router", "forward", "look")
        return sum(getattr(self, part) * getattr(per_token, part) for part in parts)

    def seconds(self, per_token: TokenFlops, speed: Speed) -> float:
        """How long it takes at the speeds measured."""
        rates = {
            "expert": speed.expert,
            "router": speed.router,
            "forward": speed.forward,
            "look": speed.forward,
        }
        need = {part: getattr(self, part) * getattr(per_token, part) for part in rates}
        return sum(flops / rates[part] for part, flops in need.items() if flops)


@dataclass(frozen=True)
class OnDevice:
    """One client on its device, as its profile has it; a round as `comigs.costs.trip` counts it.

    Attributes:
        usable: bytes of memory, less the margin.
        seconds: computing in a round it takes part in.
        transfer: seconds of sending and receiving in such a round, latency included.
        joules: of such a round, above idle.
    """

    profile: str
    usable: int
    fits: bool
    seconds: float
    transfer: float
    joules: float


@dataclass(frozen=True)
class ClientPlan:
    """One client. A round is one that it takes part in.

    Attributes:
        flops: of a round's training; router steps that come every few rounds in their share. With
            `train.layers` the mean over its rounds.
        rounds: how many it takes part in.
        up, down: bytes in a round; down, the most of any.
        up_run, down_run: bytes in the whole run, with the final evaluation.
        exact: false where `up` and `up_run` are upper limits.
    """

    name: str
    experts: int
    rank: int
    dtype: str
    micro_batch: int
    parameters: Parameters
    memory: Memory
    flops: float
    rounds: int
    up: int
    down: int
    up_run: int
    down_run: int
    exact: bool
    device: OnDevice | None = None


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        seconds: expected wall time of training and evaluation on this machine.
        host_memory: expected bytes on this machine, by engine; of Ray without its own services.
        process: bytes that a process holds beside tensors.
        edge_up, edge_down: bytes between edges and server in all rounds (`server.tiers`).
        sim_seconds: of all rounds on the simulated clock; None without devices.
    """

    clients: list[ClientPlan]
    seconds: float
    host_memory: dict[str, int]
    process: int
    edge_up: int = 0
    edge_down: int = 0
    sim_seconds: float | None = None


def make_plan(run: Run, speeds: Mapping[Kind, Speed], process: int, workers: int) -> Plan:
    """Plan a run whose devices and threads are filled in.

    Args:
        speeds: of this machine, for each kind of client there is (`comigs.costs.calibrate`).
        process: bytes that a process holds beside tensors: libraries, tokens, threads.
        workers: processes that the ray engine would have.
    """
    config, count, expected = run.config, len(run.names), traffic(run)
    sent = expected.clients
    trains, tested = run.method.trains, takers_of_the_test(run, range(count))
    plans, seconds = [], 0.0
    for i, client in enumerate(run.clients()):
        per_token, work = mean_flops(client, sent[i].rounds), _training(client, count)
        experts = client.experts
        plan = ClientPlan(
            run.names[i],
            experts.total,
            cast(int, experts.rank),
            client.dtype,
            client.config.micro_batch,
            parameter_counts(client),
            peak_memory(on_its_device(client) if client.profile else client),
            work.flops(per_token) if trains else 0.0,
            len(sent[i].rounds),
            sent[i].update,
            max(sent[i].down),
            sum(sent[i].up),
            sum(sent[i].down),
            sent[i].exact,
        )
        plans.append(replace(plan, device=_on_device(client, plan, work, per_token)))
        evaluated = _evaluated(client, sent[i].rounds, i in tested)
        speed = speeds[kind_of(client)]
        seconds += plan.rounds * work.seconds(per_token, speed)
        seconds += evaluated.seconds(per_token, speed)
    at_once = min(workers, wanted(run, count))
    seconds /= at_once if config.engine.name == "ray" else 1
    host = _host_memory(plans, process, workers)
    up, down = sum(one.edge_up for one in sent), sum(one.edge_down for one in sent)
    return Plan(plans, seconds, host, process, up, down, expected.sim_seconds)


def _training(client: Client, count: int) -> Work:
    """The work of a round on average, with the evaluations that belong to the method."""
    config, steps = client.config, client.run.steps_per_round
    batch = config.batch_size * config.data.seq_len
    router_steps = steps / config.router.every * config.router.steps
    peers = count if client.method.peers else 0
    valid = places(data_of(client).valid) if peers else 0
    evaluated = peers * valid + client.method.looks(config)
    return Work(steps * batch, router_steps * batch, look=evaluated)


def _evaluated(client: Client, rounds: Collection[int], tested: bool) -> Work:
    """The evaluations that only show how training goes, over the whole run.

    A gradient on validation text counts as an expert step (`log.metrics` with peers, wherever
    something arrives).
    """
    config, metrics = client.config, client.config.log.metrics or ()
    every, arrivals = config.log.eval_every, sum(number > 1 for number in rounds) + tested
    looks = arrivals if any(isinstance(find_metric(name), OfPeers) for name in metrics) else 0
    gradients = looks * config.batch_size * config.data.seq_len
    if not (every and rounds) and not tested:
        return Work(expert=gradients)
    data = data_of(client)
    tests = 3 if client.method.trains else 1  # the base, before and after averaging
    test, valid = sum(map(places, data.tests.values())), places(data.valid)
    measured = 1 + len(of_models(metrics))
    on_the_way = measured * len(rounds) / every if every else 0
    at_the_end = tests * test + valid if tested else 0
    return Work(expert=gradients, forward=on_the_way * valid + at_the_end)


def _on_device(client: Client, plan: ClientPlan, work: Work, cost: TokenFlops) -> OnDevice | None:
    profile = client.profile
    if profile is None:
        return None
    have = usable(client.config, profile)
    fits = plan.memory.total <= have
    if not client.method.trains:
        return OnDevice(profile.name, have, fits, 0.0, 0.0, 0.0)
    one = trip(client, profile, cost, plan.down, plan.up, work.expert, work.router, work.look)
    transfer = one.down + one.up
    return OnDevice(profile.name, have, fits, one.compute, transfer, one.joules)


def _host_memory(clients: list[ClientPlan], process: int, workers: int) -> dict[str, int]:
    """The base is held once, each client shape's adapters once in a process."""
    bases = {plan.dtype: plan.memory.base for plan in clients}
    adapters = {(p.experts, p.rank, p.dtype): p.memory.adapters for p in clients}
    step = max(p.memory.total - p.memory.base - p.memory.adapters for p in clients)
    one, base = process + sum(adapters.values()) + step, sum(bases.values())
    return {"inline": one + base, "ray": process + workers * one + base}
