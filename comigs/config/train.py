"""The configuration's `train`, `log` and `stop` sections: local steps, what is told, the end."""

from dataclasses import dataclass, field
from typing import Literal

from comigs.errors import BadInput
from comigs.schema.rules import at_least, positive, require


@dataclass(frozen=True)
class TrainConfig:
    optimizer: str = "adamw"
    """Local optimiser: a file of comigs/training/optimizers."""
    lr: float = 2e-3
    """Peak learning rate of the experts."""
    weight_decay: float = 0.01
    """Decoupled weight decay of experts and routers."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """Decay of AdamW's two moments; the first is also the momentum of sgd and muon."""
    schedule: str = "cosine"
    """Course of the learning rate over the run: a file of comigs/training/schedules."""
    warmup: float = 0.0
    """Share of all local steps over which the learning rate rises to its schedule, along a line."""
    rewarm: float = 0.0
    """Share of each round's local steps over which the learning rate rises again, along a line."""
    swa: int | None = None
    """Round from which the final model is the mean over rounds; null: it is that of the last."""
    layers: int | None = None
    """Layers whose experts a client trains and sends in a round, drawn anew; null: all."""
    clip: float | None = None
    """Norm that the gradient is cut to; null: never."""
    loss: Literal["full", "chunked"] = "full"
    """Whether the logits of all tokens are held at once; chunked never does."""
    checkpointing: bool = False
    """Recompute each layer in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the forward pass with torch.compile."""

    def __post_init__(self) -> None:
        positive("train.lr", self.lr)
        at_least("train.weight_decay", self.weight_decay, 0)
        ok = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        require(ok, "train.betas", self.betas, "two numbers in [0, 1)")
        require(0 <= self.warmup < 1, "train.warmup", self.warmup, "a share of the steps in [0, 1)")
        require(0 <= self.rewarm < 1, "train.rewarm", self.rewarm, "a share of the steps in [0, 1)")
        at_least("train.swa", self.swa, 1)
        at_least("train.layers", self.layers, 1)
        positive("train.clip", self.clip)
        if self.compile and self.checkpointing:
            raise BadInput("train.compile must be false with train.checkpointing", "train.compile")


@dataclass(frozen=True)
class LogConfig:
    tensorboard: bool = True
    """Write TensorBoard events to RUN/events."""
    trackers: list[str] | None = None
    """More trackers, e.g. [wandb]; each is a file of comigs/track."""
    metrics: list[str] | None = None
    """More of each evaluation, e.g. [generalist_share]; files of comigs/evaluation/metrics."""
    eval_every: int = 1
    """Rounds between evaluations on validation text; 0: never."""

    def __post_init__(self) -> None:
        at_least("log.eval_every", self.eval_every, 0)


@dataclass(frozen=True)
class StopConfig:
    """Early stopping (`comigs.federation.stopping`)."""

    patience: int | None = None
    """Evaluations without a new best that end the run; null: none do. Schedules are of `rounds`."""
    metric: Literal["perplexity", "worst"] = "perplexity"
    """Of the clients' newest validation perplexities: the mean, or the highest."""

    def __post_init__(self) -> None:
        at_least("stop.patience", self.patience, 1)
