"""What a run will take, before it starts: memory, work, bytes, energy and time.

Everything but the expected time here follows from the configuration alone.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import cast

from comigs.calibrate import Speed
from comigs.config import RunConfig
from comigs.cost import Parameters, TokenFlops, parameter_counts, token_flops
from comigs.devices import profile_of
from comigs.devices.fit import usable
from comigs.local import data_of, experts_of, steps_per_round, training_clients
from comigs.memory import Memory, peak_memory
from comigs.methods import find_method
from comigs.selection import answering
from comigs.traffic import traffic
from comigs.trip import trip


@dataclass(frozen=True)
class Work:
    """Tokens that go through each kind of step.

    Attributes:
        forward: of evaluations that belong to the method.
        watching: of evaluations that only the log or the table wants; no device is charged for it.
    """

    expert: float = 0
    router: float = 0
    forward: float = 0
    watching: float = 0

    def flops(self, per_token: TokenFlops) -> float:
        return (
            self.expert * per_token.expert
            + self.router * per_token.router
            + (self.forward + self.watching) * per_token.forward
        )

    def seconds(self, per_token: TokenFlops, speed: Speed) -> float:
        """How long it takes at the speeds measured."""
        need = {
            "expert": self.expert * per_token.expert,
            "router": self.router * per_token.router,
            "forward": (self.forward + self.watching) * per_token.forward,
        }
        return sum(flops / getattr(speed, part) for part, flops in need.items() if flops)


@dataclass(frozen=True)
class OnDevice:
    """One client on its device.

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
        flops: in a round; router steps and evaluations that come every few rounds in their share.
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
    """

    clients: list[ClientPlan]
    seconds: float
    host_memory: dict[str, int]


def make_plan(config: RunConfig, speed: Speed, process: int, workers: int) -> Plan:
    """Plan a run of a config whose devices and threads are filled in.

    Args:
        speed: of this machine (`comigs.calibrate`).
        process: bytes of a process that has imported everything and holds no model.
        workers: processes that the ray engine would have.
    """
    count, sent = len(training_clients(config)), traffic(config)
    rounds = Counter(
        i for t in range(1, config.rounds + 1) for i in answering(config, t, range(count))
    )
    trains = find_method(config.method).trains
    clients, seconds = [], 0.0
    for i, name in enumerate(training_clients(config)):
        own, experts, per_token = (
            config.for_client(i),
            experts_of(config, i),
            token_flops(config, i),
        )
        in_round, at_the_end = _work(config, i, count)
        plan = ClientPlan(
            name,
            experts.total,
            cast(int, experts.rank),
            cast(str, own.model.dtype),
            own.micro_batch,
            parameter_counts(config, i),
            peak_memory(own, i),
            in_round.flops(per_token) if trains else 0.0,
            rounds[i] if trains else 0,
            sent[i].update,
            max(sent[i].down),
            sum(sent[i].up),
            sum(sent[i].down),
            sent[i].exact,
        )
        clients.append(replace(plan, device=_on_device(config, i, plan, in_round)))
        seconds += plan.rounds * in_round.seconds(per_token, speed)
        seconds += at_the_end.seconds(per_token, speed)
    at_once = min(workers, max(1, round(config.participation * count)))
    seconds /= at_once if config.engine.name == "ray" else 1
    return Plan(clients, seconds, _host_memory(clients, process, workers))


def _work(config: RunConfig, client: int, count: int) -> tuple[Work, Work]:
    """The work of a round, on average, and of the final evaluation."""
    method, data = find_method(config.method), data_of(config, client)
    valid, test = len(data.valid), sum(len(tokens) for tokens in data.tests.values())
    steps = steps_per_round(config)
    batch = config.batch_size * config.data.seq_len
    watching = valid / config.log.eval_every if config.log.eval_every else 0.0
    peers = count * valid if method.aggregator == "gather" else 0  # every peer's model
    tests = 3 if method.trains else 1  # the base, before and after the last averaging
    routers = steps / config.router.every * config.router.steps
    return (
        Work(steps * batch, routers * batch, peers, watching),
        Work(watching=tests * test + valid),
    )


def _on_device(config: RunConfig, client: int, plan: ClientPlan, work: Work) -> OnDevice | None:
    profile = profile_of(config, client)
    if profile is None:
        return None
    have = usable(config, profile)
    one = trip(config, client, plan.down, plan.up, work.expert, work.router, work.forward)
    return OnDevice(
        profile.name, have, plan.memory.total <= have, one.compute, one.down + one.up, one.joules
    )


def _host_memory(clients: list[ClientPlan], process: int, workers: int) -> dict[str, int]:
    """The base is held once, each client shape's adapters once in a process."""
    bases = {plan.dtype: plan.memory.base for plan in clients}
    adapters = {(p.experts, p.rank, p.dtype): p.memory.adapters for p in clients}
    step = max(p.memory.total - p.memory.base - p.memory.adapters for p in clients)
    one, base = process + sum(adapters.values()) + step, sum(bases.values())
    return {"inline": one + base, "ray": process + workers * one + base}
