"""The configuration's `model` and `data` sections: the frozen base, and the text."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from comigs.errors import BadInput
from comigs.schema.rules import at_least, place, require

PerClient = int | list[int]  # one value for all clients, or one for each
Dtype = Literal["float32", "bfloat16", "int8", "nf4"]
Target = Literal["in_distribution", "mixture"]
Compute = Literal["auto", "float32", "bfloat16", "float16"]

NATIVE = {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16", "nf4": "bfloat16"}
"""By how a base is stored, the type of its products on a machine that is good at all of them."""


def own(value: Any, client: int) -> Any:
    """A client's own value of a setting that may hold one for each client."""
    return value[client] if isinstance(value, list) else value


@dataclass(frozen=True)
class ModelConfig:
    name: str = "comigs-tiny"
    """Bundled model, local folder, or id on the hub."""
    dtype: Dtype | list[Dtype] = "float32"
    """How the frozen base is stored; adapters are float32. One value, or one for each client."""
    compute: Compute | list[Compute] = "auto"
    """How its products are done; auto: what this machine is fast at. One value, or one each."""
    attention_lora: bool = True
    """Whether a LoRA on the attention linears belongs to the first expert."""

    def __post_init__(self) -> None:
        place("model.name", self.name)

    @property
    def native(self) -> bool:
        """Whether all products are done in the type that goes with the storage."""
        return all(compute in ("auto", NATIVE[dtype]) for dtype, compute in self.kinds())

    def kinds(self) -> list[tuple[Dtype, Compute]]:
        """Storage and arithmetic of each client; one pair where all are alike."""
        lists = [len(x) for x in (self.dtype, self.compute) if isinstance(x, list)]
        clients = range(max(lists, default=1))
        return [(own(self.dtype, i), own(self.compute, i)) for i in clients]

    def for_client(self, client: int) -> "ModelConfig":
        """The base of one client, with plain types."""
        return replace(self, dtype=own(self.dtype, client), compute=own(self.compute, client))


@dataclass(frozen=True)
class SelectConfig:
    """Which blocks of its training text a client trains on (`comigs.influence.selection`)."""

    by: Literal["hyperinf", "classifier"] | None = None
    """What blocks of seq_len tokens are ranked by, on validation text; null: none is left out."""
    keep: float = 0.7
    """Share of the blocks that is kept, the best of them."""
    after: int = 0
    """Local steps on all text before a client chooses, at the beginning of a round."""

    def __post_init__(self) -> None:
        require(0 < self.keep <= 1, "data.select.keep", self.keep, "in (0, 1]")
        at_least("data.select.after", self.after, 0)


@dataclass(frozen=True)
class DataConfig:
    name: str = "multilingual"
    """Bundled federation, or a folder with the texts or chats of each client."""
    source: str | None = None
    """Instead of a name: a data set that a federation is made of, as by comigs data prepare."""
    prepare: dict[str, Any] = field(default_factory=dict)
    """How data.source is prepared: options of comigs data prepare, as `{clients: 4, seed: 1}`."""
    target: Target | list[Target] = "in_distribution"
    """Validation and test text: the client's own kind, or everybody's mixed. One, or one each."""
    loss: Literal["answers", "all"] = "answers"
    """What is learnt and measured of chats: the assistant's answers, or all. Of plain text all."""
    seq_len: int = 128
    """Tokens of a sequence."""
    skip_small: bool = False
    """Leave out clients whose text is too short for one sequence in some split; else refuse."""
    train_tokens: PerClient | None = None
    """Keep so many from its start; null: all. One value, or one for each client."""
    valid_tokens: PerClient | None = None
    """The same of the validation text."""
    test_tokens: PerClient | None = None
    """The same of the test text."""
    test_clients: int | None = None
    """Clients in the final test, drawn from the seed; null: all."""
    select: SelectConfig = field(default_factory=SelectConfig)

    @property
    def mixes(self) -> bool:
        """Whether any client's target is everybody's text."""
        return (
            "mixture" in self.target if isinstance(self.target, list) else self.target == "mixture"
        )

    def __post_init__(self) -> None:
        place("data.name", self.name)
        if self.source is not None:
            place("data.source", self.source)
            if self.name != DataConfig.name:
                raise BadInput(
                    f"data.name is {self.name!r} and data.source {self.source!r}; give one of them",
                    "data.source",
                )
        elif self.prepare:
            raise BadInput("data.prepare is for data.source; give that, too", "data.prepare")
        at_least("data.seq_len", self.seq_len, 1)
        for key in ("train_tokens", "valid_tokens", "test_tokens"):
            at_least(f"data.{key}", getattr(self, key), 2)
        at_least("data.test_clients", self.test_clients, 1)
