"""The configuration of a run: plain frozen dataclasses that check themselves.

Reading YAML, overrides and error positions are in `comigs.configload`.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from comigs.errors import BadInput

PerClient = int | list[int]  # one value for all clients, or one for each


def _require(ok: bool, key: str, value: object, rule: str) -> None:
    if not ok:
        raise BadInput(f"{key} is {value!r}; it must be {rule}")


def _at_least(key: str, value: "PerClient | float | None", least: float) -> None:
    for v in value if isinstance(value, list) else [value]:
        if v is not None:
            _require(math.isfinite(v) and v >= least, key, value, f"at least {least}")


def _positive(key: str, value: float | None) -> None:
    if value is not None:
        _require(math.isfinite(value) and value > 0, key, value, "a number above 0")


@dataclass(frozen=True)
class ModelConfig:
    name: str = "comigs-tiny"  # bundled model, local folder or hub id
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the frozen base; adapters are float32
    attention_lora: bool = True  # one shared LoRA on the attention linears


@dataclass(frozen=True)
class DataConfig:
    name: str = "multilingual"  # bundled federation, or a folder with one text file per client
    target: Literal["in_distribution", "mixture"] = "in_distribution"  # of validation and test text
    seq_len: int = 128  # tokens per sequence
    train_tokens: PerClient | None = None  # keep this many from the start of the split; null: all
    valid_tokens: PerClient | None = None
    test_tokens: PerClient | None = None

    def __post_init__(self) -> None:
        _at_least("data.seq_len", self.seq_len, 1)
        for key in ("train_tokens", "valid_tokens", "test_tokens"):
            _at_least(f"data.{key}", getattr(self, key), 2)


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
        _at_least("experts.generalists", self.generalists, 0)
        _at_least("experts.specialists", self.specialists, 0)
        _at_least("experts.rank", self.rank, 1)
        _positive("experts.alpha", self.alpha)
        _require(0 <= self.dropout < 1, "experts.dropout", self.dropout, "in [0, 1)")
        _at_least("experts.top_k", self.top_k, 1)
        counts = self.specialists if isinstance(self.specialists, list) else [self.specialists]
        for total in (self.generalists + s for s in counts):
            _require(total >= 1, "experts.generalists + specialists", total, "at least 1")
            if total > 1 and self.top_k > total:
                raise BadInput(f"experts.top_k is {self.top_k}; a client has only {total} experts")

    def for_client(self, client: int) -> "ExpertsConfig":
        """The experts of one client, with plain numbers."""
        specialists, rank = (
            value[client] if isinstance(value, list) else value
            for value in (self.specialists, self.rank)
        )
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
    grad: Literal["alternating", "first_order"] = "alternating"  # see comigs/hypergradient.py
    nu: float = 0.5  # of first_order: weight of the validation loss in the inner problem
    inner_steps: int = 1  # of first_order
    balance: float = 0.01  # weight of the balance loss (lambda)
    generalist_importance: float = 0.5  # share of the load meant for the first expert (iota)

    def __post_init__(self) -> None:
        _at_least("router.every", self.every, 1)
        _at_least("router.steps", self.steps, 1)
        _positive("router.lr", self.lr)
        _positive("router.nu", self.nu)
        _at_least("router.inner_steps", self.inner_steps, 1)
        _at_least("router.balance", self.balance, 0)
        iota = self.generalist_importance
        _require(0 < iota < 1, "router.generalist_importance", iota, "between 0 and 1")


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
        _positive("train.lr", self.lr)
        _at_least("train.weight_decay", self.weight_decay, 0)
        ok = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        _require(ok, "train.betas", self.betas, "two numbers in [0, 1)")
        _positive("train.clip", self.clip)
        if self.compile and self.checkpointing:
            raise BadInput("train.compile must be false with train.checkpointing")


@dataclass(frozen=True)
class ServerConfig:
    strategy: Literal[
        "FedAvg", "FedProx", "FedAdam", "FedYogi", "FedAvgM",
        "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan",
    ] = "FedAvg"  # Flower strategy for the shared tensors  # fmt: skip
    options: dict[str, Any] = field(default_factory=dict)  # of the strategy, e.g. {eta: 0.01}
    weighting: Literal["uniform", "samples"] = "uniform"  # of clients in the average
    min_clients: int = 1  # a round with fewer answers stops the run
    round_timeout: float | None = None  # seconds a client may take for a round; null: no limit

    def __post_init__(self) -> None:
        _at_least("server.min_clients", self.min_clients, 1)
        _positive("server.round_timeout", self.round_timeout)


@dataclass(frozen=True)
class EngineConfig:
    name: Literal["inline", "ray"] = "inline"  # this process, or worker processes
    workers: int | None = None  # processes of the ray engine; null: one per core

    def __post_init__(self) -> None:
        _at_least("engine.workers", self.workers, 1)


@dataclass(frozen=True)
class LogConfig:
    tensorboard: bool = True  # write TensorBoard events
    eval_every: int = 1  # rounds between validation evaluations; 0: never

    def __post_init__(self) -> None:
        _at_least("log.eval_every", self.eval_every, 0)


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
    micro_batch_size: int | None = None  # sequences per forward pass; null: batch_size
    threads: int | None = None  # torch threads per client; null: what the engine uses best
    train: TrainConfig = TrainConfig()
    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
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
            _at_least(key, getattr(self, key), 1)
        _at_least("seed", self.seed, 0)
        _require(0 < self.participation <= 1, "participation", self.participation, "in (0, 1]")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            _require(
                False, "micro_batch_size", self.micro_batch_size, f"a divisor of {self.batch_size}"
            )
        if self.micro_batch_size and self.router.grad == "first_order":
            raise BadInput("micro_batch_size must be null with router.grad first_order")
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
        for key, value in {
            "experts.specialists": self.experts.specialists,
            "experts.rank": self.experts.rank,
            "data.train_tokens": self.data.train_tokens,
            "data.valid_tokens": self.data.valid_tokens,
            "data.test_tokens": self.data.test_tokens,
        }.items():
            if not isinstance(value, list):
                continue
            if count is not None and len(value) != count:
                raise BadInput(f"{key} has {len(value)} values, but {source} has or is {count}")
            count, source = len(value), key
