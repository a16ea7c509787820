"""Replies in OpenAI's shapes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comigs.talk.engine import Said


@dataclass
class Choice:
    """One text on its way.

    Attributes:
        read: tokens of its prompt.
        said: the last piece that came.
        text: all that came.
    """

    index: int
    read: int
    said: Said | None = None
    text: str = ""

    def take(self, said: Said) -> None:
        self.said = said
        self.text += said.text

    @property
    def ending(self) -> str | None:
        return self.said.ending if self.said else None


@dataclass(frozen=True)
class Reply:
    """The replies to one request.

    Attributes:
        chat: whether it is one of /v1/chat/completions.
    """

    chat: bool
    id: str
    created: int
    model: str

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The reply at once."""
        return self._head("chat.completion" if self.chat else "text_completion") | {
            "choices": [self._choice(each) for each in choices],
            "usage": usage(choices),
        }

    def begin(self, choice: Choice) -> list[str]:
        """Events before the first piece."""
        if not self.chat:
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._event([{"index": choice.index, "delta": delta, "finish_reason": None}])]

    def piece(self, choice: Choice, said: Said) -> str:
        """The event of one piece."""
        about = {"index": choice.index, "finish_reason": said.ending, "logprobs": None}
        if self.chat:
            return self._event([about | {"delta": {"content": said.text} if said.text else {}}])
        return self._event([about | {"text": said.text}])

    def end(self, choices: Sequence[Choice], counts: bool) -> list[str]:
        """Events behind the last piece."""
        more = [self._event([], usage=usage(choices))] if counts else []
        return [*more, "data: [DONE]\n\n"]

    def _choice(self, choice: Choice) -> dict[str, Any]:
        about = {"index": choice.index, "finish_reason": choice.ending, "logprobs": None}
        if self.chat:
            return about | {"message": {"role": "assistant", "content": choice.text}}
        return about | {"text": choice.text}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event(self._head(kind) | {"choices": choices} | more)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(body: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def usage(choices: Sequence[Choice]) -> dict[str, int]:
    """Tokens read and written."""
    read = sum(choice.read for choice in choices)
    written = sum(choice.said.tokens for choice in choices if choice.said)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
