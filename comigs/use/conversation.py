"""A chat with clients of a run: what was said, and who answers."""

from collections.abc import Callable, Generator
from dataclasses import replace

from comigs.data.chats import ANSWERS, Chat, Turn
from comigs.errors import BadInput
from comigs.talk.batch import write
from comigs.talk.sampling import Sampling
from comigs.use.stage import Stage


class Conversation:
    """A chat, whose next answer comes from the client on stage.

    Attributes:
        chat: what was said and is not forgotten.
        forgotten: turns at its start that the model's context had no room for.
    """

    def __init__(self, stage: Stage, ask_for: Callable[[Sampling], Sampling]) -> None:
        """Args: ask_for: makes what is asked of each answer from what the model's settings say."""
        self.stage, self._ask_for = stage, ask_for
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self.chat: Chat = ()
        self.forgotten = 0

    def ask(self, text: str) -> Generator[str, None, None]:
        """Yield the answer piece by piece; what was taken of it belongs to the chat.

        Raises:
            BadInput: the question alone is too long for the model; it is not kept.
        """
        asked = (*self.chat, Turn("user", text))
        sampling = self._ask_for(self.stage.sampling)
        if self.stage.context:
            sampling = replace(sampling, tokens=min(sampling.tokens, self.stage.context // 2))
        forgotten = 0
        while True:
            try:
                prompt = self.stage.prompt(0, asked[forgotten:], sampling)
                break
            except BadInput as error:
                if error.key != "prompt" or len(asked) - forgotten < 3:
                    raise
                forgotten += 2
        self.forgotten += forgotten
        answer = ""
        try:
            for _, piece in write(self.stage.batch(), [prompt]):
                answer += piece
                yield piece
        finally:
            self.chat = (*asked[forgotten:], Turn(ANSWERS, answer.strip()))
