"""The configuration of a run: plain frozen dataclasses that check themselves.

Reading YAML, overrides and error positions are in `comigs.config.load`.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from comigs.config.devices import DevicesConfig
from comigs.config.flower import FlowerConfig
from comigs.config.pools import RayConfig
from comigs.config.privacy import FaultsConfig, PayloadConfig, PrivacyConfig
from comigs.config.rules import at_least, folder_name, place, positive, require
from comigs.config.strategies import find_strategy
from comigs.errors import BadInput

PerClient = int | list[int]  # one value for all clients, or one for each
Dtype = Literal["float32", "bfloat16"]


def own(value: Any, client: int) -> Any:
    """A client's own value of a setting that may hold one for each client."""
    return value[client] if isinstance(value, list) else value


@dataclass(frozen=True)
class ModelConfig:
    name: str = "comigs-tiny"  # bundled model, local folder or hub id
    dtype: Dtype | list[Dtype] = "float32"  # of the frozen base; adapters are float32
    attention_lora: bool = True  # one shared LoRA on the attention linears

    def __post_init__(self) -> None:
        place("model.name", self.name)

    def for_client(self, client: int) -> "ModelConfig":
        """The base of one client, with a plain dtype."""
        return replace(self, dtype=own(self.dtype, client))


@dataclass(frozen=True)
class DataConfig:
    name: str = "multilingual"  # bundled federation, or a folder with one text file per client
    target: Literal["in_distribution", "mixture"] = "in_distribution"  # of validation and test text
    seq_len: int = 128  # tokens per sequence
    train_tokens: PerClient | None = None  # keep this many from the start of the split; null: all
    valid_tokens: PerClient | None = None
    test_tokens: PerClient | None = None
    test_clients: int | None = None  # clients in the final test, drawn from the seed; null: all

    def __post_init__(self) -> None:
        place("data.name", self.name)
        at_least("data.seq_len", self.seq_len, 1)
        for key in ("train_tokens", "valid_tokens", "test_tokens"):
            at_least(f"data.{key}", getattr(self, key), 2)
        at_least("data.test_clients", self.test_clients, 1)


@dataclass(frozen=True)
class ExpertsConfig:
    generalists: int = 1  # experts averaged over clients
    specialists: PerClient = 1  # experts that stay on the client
    top_k: int = 2  # experts per token
    rank: PerClient = 8  # LoRA rank r
    alpha: float = 16.0  # LoRA alpha
    scaling: Literal["rslora", "standard"] = "rslora"  # alpha / sqrt(r) or alpha / r
    dropout: float = 0.0  # LoRA dropout
    routed: bool = True  # false: no router, every expert has weight 1/E

    def __post_init__(self) -> None:
        at_least("experts.generalists", self.generalists, 0)
        at_least("experts.specialists", self.specialists, 0)
        at_least("experts.rank", self.rank, 1)
        positive("experts.alpha", self.alpha)
        require(0 <= self.dropout < 1, "experts.dropout", self.dropout, "in [0, 1)")
        at_least("experts.top_k", self.top_k, 1)
        counts = self.specialists if isinstance(self.specialists, list) else [self.specialists]
        for total in (self.generalists + s for s in counts):
            require(total >= 1, "experts.generalists + specialists", total, "at least 1")
            if total > 1 and self.top_k > total:
                raise BadInput(f"experts.top_k is {self.top_k}; a client has only {total} experts")

    def for_client(self, client: int) -> "ExpertsConfig":
        """The experts of one client, with plain numbers."""
        specialists, rank = own(self.specialists, client), own(self.rank, client)
        return replace(self, specialists=specialists, rank=rank)

    @property
    def total(self) -> int:
        """Experts of one client (call `for_client` first)."""
        assert isinstance(self.specialists, int)
        return self.generalists + self.specialists


@dataclass(frozen=True)
class RouterConfig:
    unit: Literal["token"] = "token"  # what is routed
    trainable: bool = True  # false: routers stay as drawn
    every: int = 30  # local steps between router updates, counted over all rounds (tau)
    steps: int = 10  # router steps per update
    data: Literal["valid", "train"] = "valid"  # text that routers learn on
    lr: float | None = None  # null: train.lr; constant
    grad: Literal["alternating", "first_order"] = "alternating"  # see training/hypergradient.py
    nu: float = 0.1  # of first_order: weight of the validation loss in the inner problem
    inner_steps: int = 3  # of first_order
    balance: float = 0.01  # weight of the balance loss (lambda)
    generalist_importance: float = 0.5  # share of the load meant for the first expert (iota)

    def __post_init__(self) -> None:
        at_least("router.every", self.every, 1)
        at_least("router.steps", self.steps, 1)
        positive("router.lr", self.lr)
        positive("router.nu", self.nu)
        at_least("router.inner_steps", self.inner_steps, 1)
        at_least("router.balance", self.balance, 0)
        iota = self.generalist_importance
        require(0 < iota < 1, "router.generalist_importance", iota, "between 0 and 1")


@dataclass(frozen=True)
class TrainConfig:
    optimizer: Literal["adamw"] = "adamw"
    lr: float = 2e-3  # peak learning rate of the experts
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    schedule: Literal["cosine", "constant", "linear"] = "cosine"  # over all local steps
    clip: float | None = None  # gradient norm to clip at; null: no clipping
    loss: Literal["full", "chunked"] = "full"  # chunked: never the logits of all tokens at once
    checkpointing: bool = False  # recompute each layer in the backward pass: less memory, more time
    compile: bool = False  # torch.compile the forward pass

    def __post_init__(self) -> None:
        positive("train.lr", self.lr)
        at_least("train.weight_decay", self.weight_decay, 0)
        ok = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        require(ok, "train.betas", self.betas, "two numbers in [0, 1)")
        positive("train.clip", self.clip)
        if self.compile and self.checkpointing:
            raise BadInput("train.compile must be false with train.checkpointing")


@dataclass(frozen=True)
class ServerConfig:
    strategy: str = "FedAvg"  # for the shared tensors; one of comigs/config/strategies.py
    options: dict[str, Any] = field(default_factory=dict)  # of the strategy, e.g. {eta: 0.01}
    weighting: Literal["uniform", "samples"] = "uniform"  # of clients in the average
    max_share: float | None = 0.5  # of samples: no client weighs more in a round; null: any weight
    min_clients: int = 1  # a round with fewer answers stops the run
    round_timeout: float | None = None  # seconds a client may take for a round; null: no limit
    over_selection: float = 0.0  # extra share of clients asked; the first updates count
    deadline: float | None = None  # simulated seconds until a round closes; null: the slowest
    late: Literal["discard", "keep"] = "discard"  # late updates; keep: for the round they arrive in
    max_norm: float | None = None  # a client whose update is longer fails; null: absurdly long

    def __post_init__(self) -> None:
        find_strategy(self.strategy)
        if self.max_share is not None:
            require(
                0 < self.max_share <= 1, "server.max_share", self.max_share, "in (0, 1], or null"
            )
        at_least("server.min_clients", self.min_clients, 1)
        positive("server.round_timeout", self.round_timeout)
        at_least("server.over_selection", self.over_selection, 0)
        positive("server.deadline", self.deadline)
        positive("server.max_norm", self.max_norm)


@dataclass(frozen=True)
class EngineConfig:
    name: Literal["inline", "ray", "flower"] = "inline"  # this process, workers, or real devices
    workers: int | None = None  # processes of the ray engine; null: one per core
    fuse: int = 1  # clients of equal shape that train in one pass, at most (inline)

    def __post_init__(self) -> None:
        at_least("engine.workers", self.workers, 1)
        at_least("engine.fuse", self.fuse, 1)
        if self.fuse > 1 and self.name != "inline":
            raise BadInput(f"engine.fuse is {self.fuse}; it works with engine.name inline only")


@dataclass(frozen=True)
class LogConfig:
    tensorboard: bool = True  # write TensorBoard events
    trackers: list[str] | None = None  # more of them, e.g. [wandb]; see comigs/track
    eval_every: int = 1  # rounds between validation evaluations; 0: never

    def __post_init__(self) -> None:
        at_least("log.eval_every", self.eval_every, 0)


@dataclass(frozen=True)
class RunConfig:
    name: str = "quickstart"  # of the run folder
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    experts: ExpertsConfig = ExpertsConfig()
    router: RouterConfig = RouterConfig()
    method: str = "comigs"  # one of `comigs methods`
    rounds: int = 20
    local_steps: int = 10  # expert steps per client and round
    clients: int | None = None  # null: all that the data has
    participation: float = 1.0  # share of the clients that train in a round
    seed: int = 42
    batch_size: int = 16  # sequences per step
    micro_batch_size: PerClient | None = None  # sequences per forward pass; null: batch_size
    threads: int | None = None  # torch threads per client; null: what the engine uses best
    train: TrainConfig = TrainConfig()
    server: ServerConfig = ServerConfig()
    payload: PayloadConfig = field(default_factory=PayloadConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    engine: EngineConfig = EngineConfig()
    ray: RayConfig = field(default_factory=RayConfig)
    flower: FlowerConfig = field(default_factory=FlowerConfig)
    log: LogConfig = LogConfig()

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
        require(0 < self.participation <= 1, "participation", self.participation, "in (0, 1]")
        size = self.micro_batch_size
        for micro in size if isinstance(size, list) else [size]:
            good = not micro or self.batch_size % micro == 0
            require(good, "micro_batch_size", size, f"a divisor of {self.batch_size}")
        if self.micro_batch_size and self.router.grad == "first_order":
            raise BadInput("micro_batch_size must be null with router.grad first_order")
        if self.engine.fuse > 1 and self.experts.dropout:
            raise BadInput(
                f"engine.fuse is {self.engine.fuse}; it needs experts.dropout 0, since clients in "
                "one pass cannot each draw from their own random stream"
            )
        if self.engine.fuse > 1 and self.train.loss == "chunked":
            raise BadInput(
                f"engine.fuse is {self.engine.fuse}; it needs train.loss full, since the chunked "
                "loss is one number for all clients in a pass"
            )
        self._check_clients()

    def _check_clients(self) -> None:
        count, source = self.clients, "clients"
        if count is not None:
            taking_part = max(1, round(self.participation * count))
            if self.server.min_clients > taking_part:
                raise BadInput(
                    f"server.min_clients is {self.server.min_clients}; only {taking_part} clients "
                    "take part in a round"
                )
        for key, value in self.per_client().items():
            if count is not None and len(value) != count:
                raise BadInput(f"{key} has {len(value)} values, but {source} has or is {count}")
            count, source = len(value), key

    def per_client(self) -> dict[str, list[Any]]:
        """By dotted key, the settings that hold one value for each client."""
        settings = {
            "model.dtype": self.model.dtype,
            "experts.specialists": self.experts.specialists,
            "experts.rank": self.experts.rank,
            "micro_batch_size": self.micro_batch_size,
            "data.train_tokens": self.data.train_tokens,
            "data.valid_tokens": self.data.valid_tokens,
            "data.test_tokens": self.data.test_tokens,
            "devices.profiles": self.devices.profiles,
        }
        return {key: value for key, value in settings.items() if isinstance(value, list)}

    def for_client(self, client: int) -> "RunConfig":
        """The configuration as one client trains by it: its own base, experts and micro-batch."""
        return replace(
            self,
            model=self.model.for_client(client),
            experts=self.experts.for_client(client),
            micro_batch_size=own(self.micro_batch_size, client),
        )

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass of one client (call `for_client` first)."""
        assert not isinstance(self.micro_batch_size, list)
        return self.micro_batch_size or self.batch_size
