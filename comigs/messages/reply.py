"""What a device answers: every field with its type and bounds, and nothing besides.

The server reads an answer through `read_hello` and so on before anything else sees it: whatever is
wrong with it is that client's fault alone.
"""

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from comigs.data.names import LONGEST
from comigs.errors import ComigsError, flat
from comigs.messages.fields import METRIC, metric_of, unknown
from comigs.messages.order import MOST_CLIENTS, MOST_ROUNDS

MOST_CHARACTERS = 64 * 2**20
MOST_ROWS = 100_000
MOST_METRICS = 5_000  # some are several numbers for each layer


def _plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_plain)]
Count = Annotated[int, Field(ge=0, le=10**13)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1, le=2**31)]
Shape = Annotated[tuple[Size, ...], Field(max_length=4, strict=False)]
Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


def _perplexity(value: float) -> float:
    if not value >= 1 - 1e-6:  # nor NaN; what diverged may be infinite
        raise ValueError("no perplexity is below 1")
    return value


Perplexity = Annotated[float, AfterValidator(_perplexity)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("num_examples", "num-examples"),
    )


class Hello(_Strict):
    """A client that introduces itself."""

    client: Annotated[int, Field(ge=0, lt=MOST_CLIENTS)]
    name: Name
    rounds: Annotated[
        list[Annotated[int, Field(ge=0, le=MOST_ROUNDS)]], Field(max_length=MOST_ROWS)
    ]
    shapes: Annotated[dict[Name, Shape], Field(max_length=MOST_ROWS)]
    num_examples: Annotated[int, Field(ge=1, le=10**13)] | None = None


class Reported(_Strict):
    """What a client tells about a round of training."""

    round: Annotated[int, Field(ge=1, le=MOST_ROUNDS)]
    loss: Loss
    balance: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    valid_ppl: Perplexity | None = None
    tokens: Count
    steps: Count = 0
    router_steps: Count = 0
    router_tokens: Count
    num_examples: Annotated[int, Field(ge=1, le=10**13)]
    seconds: Seconds
    train_seconds: Seconds
    eval_seconds: Seconds
    peer_evaluations: Count | None = None
    peer_evaluation_tokens: Count | None = None
    fetches: Literal[0, 1] | None = None
    metrics: Annotated[dict[Name, float], Field(max_length=MOST_METRICS)] | None = None


class TestRow(_Strict):
    """Test perplexities of one stream of test text."""

    __test__ = False  # no test of pytest's

    name: Name
    test_tokens: Count
    pretrained: Perplexity
    valid: Perplexity
    before: Perplexity
    after: Perplexity
    trainable: Count
    peer_evaluations: Count | None = None
    peer_evaluation_tokens: Count | None = None
    fused_local: Weight | None = None
    fused_global: Weight | None = None
    fusion_evaluations: Count | None = None
    bits_per_byte: Annotated[float, Field(ge=0)] | None = None
    metrics: Annotated[dict[Name, float], Field(max_length=MOST_METRICS)] | None = None


class Broken(ComigsError):
    """An answer that is not what it should be."""


_ROWS = TypeAdapter(Annotated[list[TestRow], Field(min_length=1, max_length=MOST_ROWS)])


def read_hello(text: object) -> Hello:
    """Raises: Broken."""
    return _read(Hello.model_validate, _object(text))


def read_reported(metrics: dict[str, Any]) -> Reported:
    """Raises: Broken."""
    reported: Reported = _read(Reported.model_validate, _nested(metrics))
    return reported


def read_rows(text: object, names: Collection[str], asked: Collection[str] = ()) -> list[TestRow]:
    """The rows of a final report, each of another of these test streams.

    Args:
        names: of the test streams.
        asked: `log.metrics`.

    Raises:
        Broken: what is wrong.
    """
    listed = _object(text)
    if isinstance(listed, list):
        listed = [_nested(row) if isinstance(row, dict) else row for row in listed]
    rows: list[TestRow] = _read(_ROWS.validate_python, listed)
    for row in rows:
        check_asked(row.metrics, asked)
    told = [row.name for row in rows]
    if stranger := next((name for name in told if name not in names), None):
        raise Broken(f"reports on {stranger!r}, which is not its own")
    if len(set(told)) < len(told):
        raise Broken("reports twice on one client")
    return rows


def check_asked(metrics: Mapping[str, float] | None, asked: Collection[str]) -> None:
    """Raises: Broken, for a metric that `log.metrics` does not name."""
    if (stranger := unknown(map(metric_of, metrics or ()), frozenset(asked))) is not None:
        raise Broken(f"has the metric {flat(stranger, 60)!r}, which log.metrics does not name")


def _nested(told: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that a client tells, with those of metrics under one key."""
    more = {k.removeprefix(METRIC): v for k, v in told.items() if k.startswith(METRIC)}
    plain = {k: v for k, v in told.items() if not k.startswith(METRIC)}
    return plain | ({"metrics": more} if more else {})


def _object(text: object) -> Any:
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise Broken("is no text, or a very long one")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"is not JSON ({type(error).__name__})") from None


def _read(parse: Any, value: object) -> Any:
    try:
        return parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = flat(".".join(str(part)[:60] for part in first["loc"]), 120)
        raise Broken(f"has {where} = {_shown(first['input'])}: {first['msg'][:120]}") from None
    except (RecursionError, OverflowError, ValueError) as error:
        raise Broken(f"cannot be read ({type(error).__name__})") from None


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value[:60])
    plain = isinstance(value, float | bool | None)
    return repr(value) if plain else f"({type(value).__name__})"
