"""What a request may hold. What would change an answer and is not done here is refused."""

import secrets
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from comigs.data.chats import Chat, Unfit, chat_of, messages
from comigs.errors import BadInput, flat
from comigs.talk.sampling import Sampling

None0 = Annotated[float | None, Field(ge=0, le=0)]
Never = Literal[False] | None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]


class Asked(BaseModel):
    """What both ways to ask have in common; OpenAI's names and defaults, with two of ours.

    Attributes:
        usual: tokens where nothing is asked for, if there is room; None for all that there is.
    """

    usual: ClassVar[int | None] = None
    model_config = ConfigDict(extra="forbid")
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Literal[1] | None = 1
    logprobs: Never = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    presence_penalty: None0 = None
    frequency_penalty: None0 = None

    def sampling(self, tokens: int) -> Sampling:
        """Raises: BadInput, there are too many stops, or an empty one."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > 4 or any(len(each) > 200 for each in stop):
            raise BadInput("stop holds more than 4 texts, or one of more than 200 signs", "stop")
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            seed=secrets.randbits(48) if self.seed is None else self.seed,
            tokens=tokens,
            stop=tuple(stop),
        )

    @property
    def wanted(self) -> int | None:
        """Tokens that are asked for at most; None where nothing is said of them."""
        return self.max_tokens

    def texts(self) -> list[str | Chat]:
        """What is to be continued or answered, one for each choice."""
        raise NotImplementedError


class Completion(Asked):
    """Of /v1/completions."""

    usual: ClassVar[int | None] = 16
    prompt: str | list[str]
    echo: Never = None
    best_of: Literal[1] | None = None
    suffix: None = None

    def texts(self) -> list[str | Chat]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


class ChatCompletion(Asked):
    """Of /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    top_logprobs: Literal[0] | None = None
    response_format: Plain | None = None
    store: Never = None

    @property
    def wanted(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def texts(self) -> list[str | Chat]:
        """Raises: BadInput, the messages are none."""
        try:
            chat = chat_of(messages(self.messages))
        except Unfit as error:
            raise BadInput(f"messages: {error}", "messages") from None
        if not chat:
            raise BadInput("messages holds nothing that is said", "messages")
        return [chat]


Body = TypeVar("Body", bound=Asked)


def parse(kind: type[Body], body: bytes) -> Body:
    """A request of one kind.

    Raises:
        BadInput: the body is none; `key` names the field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        reason = "it is not known here" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInput(flat(f"{field or 'the body'}: {reason}"), field) from None
