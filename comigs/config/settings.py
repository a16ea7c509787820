"""The configuration of a run: plain frozen dataclasses that check themselves.

Reading YAML, overrides and error positions are in `comigs.config.load`.
"""

import re
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from comigs.config.devices import DevicesConfig
from comigs.config.experts import ExpertsConfig, RouterConfig
from comigs.config.flower import FlowerConfig
from comigs.config.model import DataConfig, ModelConfig, PerClient, own
from comigs.config.pools import RayConfig
from comigs.config.privacy import FaultsConfig, PayloadConfig, PrivacyConfig
from comigs.config.server import EngineConfig, ServerConfig
from comigs.config.train import LogConfig, StopConfig, TrainConfig
from comigs.errors import BadInput
from comigs.hardware import DEVICES
from comigs.schema.rules import at_least, folder_name, require


@dataclass(frozen=True)
class RunConfig:
    name: str = "quickstart"
    """Start of the run folder's name."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    method: str = "comigs"
    """One of `comigs methods`."""
    start: str | None = None
    """Run folder whose shared tensors the clients begin with; null: the same random start."""
    rounds: int = 20
    """Rounds of the run."""
    extended: list[list[int]] | None = None
    """Pairs [round, rounds]: up to that round schedules were of so many; --resume adds them."""
    local_steps: int = 10
    """Expert steps of a client in a round."""
    clients: int | None = None
    """Clients of the run; null: all that the data has."""
    participation: float = 1.0
    """Share of the clients that train in a round."""
    seed: int = 42
    """Where every random stream comes from, with client, round and purpose."""
    batch_size: int = 16
    """Sequences of a step."""
    micro_batch_size: PerClient | None = None
    """Sequences of a forward pass; null: batch_size. One value, or one for each client."""
    threads: int | None = None
    """Threads of torch for each client; null: what the engine uses best."""
    device: str = "auto"
    """Where clients train: cpu, cuda, cuda:1 or mps; auto: cuda where it is there, else cpu."""
    train: TrainConfig = field(default_factory=TrainConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    payload: PayloadConfig = field(default_factory=PayloadConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    flower: FlowerConfig = field(default_factory=FlowerConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        for key in (
            "rounds",
            "local_steps",
            "clients",
            "batch_size",
            "micro_batch_size",
            "threads",
        ):
            at_least(key, getattr(self, key), 1)
        at_least("seed", self.seed, 0)
        folder_name("name", self.name)
        known = re.fullmatch(DEVICES, self.device)
        require(bool(known), "device", self.device, "auto, cpu, cuda, cuda:1 or mps")
        require(0 < self.participation <= 1, "participation", self.participation, "in (0, 1]")
        size = self.micro_batch_size
        for micro in size if isinstance(size, list) else [size]:
            good = not micro or self.batch_size % micro == 0
            require(good, "micro_batch_size", size, f"a divisor of {self.batch_size}")
        if self.micro_batch_size and self.router.grad == "first_order":
            raise BadInput(
                "micro_batch_size must be null with router.grad first_order", "micro_batch_size"
            )
        if self.engine.fuse not in ("auto", 1) and (why := self.alone):
            raise BadInput(f"engine.fuse is {self.engine.fuse}; it needs {why}", "engine.fuse")
        if (first := self.train.swa) is not None and first > self.rounds:
            raise BadInput(f"train.swa is {first}; there are {self.rounds} rounds", "train.swa")
        self._check_extended()
        self._check_stop()
        self._check_clients()
        packed = {dtype for dtype, _ in self.model.kinds()} & {"int8", "nf4"}
        if self.train.compile and packed:
            raise BadInput(
                f"train.compile must be false with model.dtype {min(packed)}", "train.compile"
            )

    @property
    def alone(self) -> str:
        """What clients would need to train in one pass with others; empty: they can."""
        if self.experts.dropout:
            return (
                "experts.dropout 0, since clients in one pass cannot each draw from their own "
                "random stream"
            )
        if self.train.loss == "chunked":
            return "train.loss full, since the chunked loss is one number for all clients in a pass"
        return ""

    def scheduled(self, number: int) -> int:
        """Of how many rounds the schedules of round `number` are."""
        earlier = (rounds for last, rounds in self.extended or () if number <= last)
        return next(earlier, self.rounds)

    def _check_extended(self) -> None:
        pairs = self.extended or []
        good = all(len(pair) == 2 and 1 <= pair[0] <= pair[1] <= self.rounds for pair in pairs)
        rising = all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(pairs))
        rule = "pairs [round, rounds] that rise, up to rounds"
        require(good and rising, "extended", self.extended, rule)

    def _check_stop(self) -> None:
        every, patience = self.log.eval_every, self.stop.patience
        if patience is not None and not 0 < every < self.rounds:
            raise BadInput(
                f"stop.patience is {patience}, which needs evaluations: set log.eval_every, now "
                f"{every}, from 1 up and below rounds ({self.rounds})",
                "stop.patience",
            )

    def _check_clients(self) -> None:
        count, source = self.clients, "clients"
        if count is not None:
            taking_part = max(1, round(self.participation * count))
            if self.server.min_clients > taking_part:
                raise BadInput(
                    f"server.min_clients is {self.server.min_clients}; only {taking_part} clients "
                    "take part in a round",
                    "server.min_clients",
                )
        for key, value in self.per_client().items():
            if count is not None and len(value) != count:
                raise BadInput(
                    f"{key} has {len(value)} values, but {source} has or is {count}", key
                )
            count, source = len(value), key

    def per_client(self) -> dict[str, list[Any]]:
        """By dotted key, the settings that hold one value for each client."""
        settings = {
            "model.dtype": self.model.dtype,
            "model.compute": self.model.compute,
            "experts.specialists": self.experts.specialists,
            "experts.top_k": self.experts.top_k,
            "experts.rank": self.experts.rank,
            "micro_batch_size": self.micro_batch_size,
            "data.target": self.data.target,
            "data.train_tokens": self.data.train_tokens,
            "data.valid_tokens": self.data.valid_tokens,
            "data.test_tokens": self.data.test_tokens,
            "devices.profiles": self.devices.profiles,
        }
        return {key: value for key, value in settings.items() if isinstance(value, list)}

    def for_client(self, client: int) -> "ClientConfig":
        """The configuration as one client trains by it: its own base, experts and micro-batch."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | {
            "model": self.model.for_client(client),
            "experts": self.experts.for_client(client),
            "micro_batch_size": own(self.micro_batch_size, client),
        }
        return ClientConfig(**values)


@dataclass(frozen=True)
class ClientConfig(RunConfig):
    """A run as one client trains by it: no value is a list with one for each client.

    Made by `RunConfig.for_client` alone; what trains takes this type and no other.
    """

    @property
    def micro_batch(self) -> int:
        """Sequences of a forward pass."""
        assert not isinstance(self.micro_batch_size, list)
        return self.micro_batch_size or self.batch_size
