"""What a server asks of a device: every field with its type and bounds, and nothing besides.

A device reads a message through `read_order`, `read_keys` and so on before anything else sees it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from comigs.config.settings import RunConfig
from comigs.errors import BadInput, Refusal, flat
from comigs.messages.plain import MOST_CHARACTERS, read_object
from comigs.schema.build import Origin, build

MOST_ROUNDS = 1_000_000
MOST_CLIENTS = 100_000
MOST_BYTES = 4096  # of a public key or an encrypted share

Number = Annotated[int, Field(ge=1, le=MOST_ROUNDS)]
State = Annotated[int, Field(ge=0, le=MOST_ROUNDS)]
Clients = Annotated[
    list[Annotated[int, Field(ge=0, lt=MOST_CLIENTS)]], Field(max_length=MOST_CLIENTS)
]
Values = Annotated[
    list[Annotated[bytes, Field(min_length=1, max_length=MOST_BYTES)]],
    Field(max_length=2 * MOST_CLIENTS),
]
Few = Annotated[int, Field(ge=2, le=MOST_CLIENTS)]


def _dashes(name: str) -> str:
    return name.replace("_", "-")


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=_dashes, allow_inf_nan=False
    )


class Asked(_Strict):
    """A query: the configuration alone."""

    config: Annotated[str, Field(max_length=MOST_CHARACTERS)]


class RoundAsked(Asked):
    """A stage of secure aggregation in a round."""

    server_round: Number


class TrainAsked(RoundAsked):
    """A round of training, from the state that an earlier round saved (0: from the start).

    Attributes:
        changes: whether the arrays are what has changed since that state's round
            (`payload.down`), not the shared tensors themselves.
        kept_round: a round whose saved state may be needed again, however old (`stop`).
        lr_factor: what the experts' learning rate is multiplied by in this round.
    """

    state_round: State
    changes: bool = False
    kept_round: State | None = None
    proximal_mu: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    lr_factor: Annotated[float, Field(ge=0.1, le=10)] = 1.0

    @model_validator(mode="after")
    def _state_is_earlier(self) -> "TrainAsked":
        if self.state_round >= self.server_round:
            raise ValueError("state-round is not before server-round")
        return self


class FinalAsked(Asked):
    """The final evaluation; `changes` as in `TrainAsked`."""

    state_round: State
    server_round: State = 0
    changes: bool = False


class Listed(_Strict):
    """Secure aggregation: keys or shares, of or for these clients."""

    clients: Clients
    values: Values

    @model_validator(mode="after")
    def _each_once(self) -> "Listed":
        if len(set(self.clients)) != len(self.clients):
            raise ValueError("a client is listed twice")
        return self


class KeysTold(Listed):
    """Secure aggregation: two public keys of each client, and how many shares restore a secret."""

    threshold: Few

    @model_validator(mode="after")
    def _majority(self) -> "KeysTold":
        count = len(self.clients)
        if len(self.values) != 2 * count:
            raise ValueError("there are not two keys for each client")
        if not count < 2 * self.threshold <= 2 * count:
            raise ValueError(f"threshold is {self.threshold}; it must be more than half of {count}")
        return self

    @property
    def public(self) -> dict[int, tuple[bytes, bytes]]:
        """By client, its keys: for masks, and for shares."""
        pairs = zip(self.values[::2], self.values[1::2], strict=True)
        return dict(zip(self.clients, pairs, strict=True))


class BoxesTold(Listed):
    """Secure aggregation: a share from each other client, and room for how many in the sum."""

    count: Few

    @model_validator(mode="after")
    def _one_each(self) -> "BoxesTold":
        if len(self.values) != len(self.clients):
            raise ValueError("there is not one share of each client")
        if self.count <= len(self.clients):
            raise ValueError("count is smaller than the number of clients")
        return self

    @property
    def inbox(self) -> dict[int, bytes]:
        return dict(zip(self.clients, self.values, strict=True))


class UnmaskTold(Listed):
    """Secure aggregation: who arrived (`clients`), and who was lost on the way."""

    lost: Clients

    @model_validator(mode="after")
    def _apart(self) -> "UnmaskTold":
        if self.values or set(self.lost) & set(self.clients):
            raise ValueError("a client both arrived and was lost")
        return self


M = TypeVar("M", bound=BaseModel)


def read(kind: type[M], record: Mapping[str, Any] | None) -> M:
    """A record of a message as `kind`.

    Raises:
        Refusal: what is wrong with it.
    """
    if record is None:
        raise Refusal("bad-order", "the server's message lacks a record")
    try:
        return kind.model_validate(dict(record))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = flat(str(first["loc"][0])) if first["loc"] else ""
        known = field in {f.alias for f in kind.model_fields.values()}
        value = "" if not field else f"{field} = {first['input']!r:.80}"
        said = "not a number" if first["type"] == "int_type" else first["msg"]
        detail = f"the server's message has {value}, {said}"
        raise Refusal("bad-order", detail, field if known else "") from None


@lru_cache(maxsize=4)
def read_config(text: str) -> RunConfig:
    """The configuration of a message: data by its schema, filled in from nowhere.

    Raises:
        Refusal: as `read_object`, or a setting is unknown or out of range.
    """
    tree = read_object(text)
    try:
        config: RunConfig = build(RunConfig, tree, Origin("the server's configuration", {}))
        return config
    except BadInput as error:
        raise Refusal("bad-config", str(error)) from None
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        why = f"the server's configuration cannot be used ({type(error).__name__})"
        raise Refusal("bad-config", why) from None
