"""The models that are served, by name: a client each, the base, and the generalist."""

from collections.abc import Sequence
from dataclasses import replace

from comigs.data.chats import Chat
from comigs.talk.batch import Batch, Prompt
from comigs.talk.sampling import Sampling
from comigs.use.stage import Stage


class Models:
    """Voices of stages by name.

    Attributes:
        names: of all, the clients' first; a name that is there twice is its first owner's.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        self._places: dict[str, tuple[int, int]] = {}
        for number, stage in enumerate(stages):
            for voice, name in enumerate(stage.names):
                self._places.setdefault(name, (number, voice))
        self.names = tuple(self._places)

    def batches(self) -> list[Batch]:
        """A batch for each base."""
        return [stage.batch() for stage in self._stages]

    def batch(self, name: str) -> int:
        """The number of the batch that a model is written in."""
        return self._places[name][0]

    def prompt(self, name: str, what: str | Chat, sampling: Sampling, up_to: bool) -> Prompt:
        """A text or a chat for a model.

        Args:
            up_to: whether fewer tokens are taken where the model's context has no room for all.

        Raises:
            BadInput: it is empty, or too long for the model.
        """
        number, voice = self._places[name]
        stage = self._stages[number]
        if not up_to or not stage.context:
            return stage.prompt(voice, what, sampling)
        prompt = stage.prompt(voice, what, replace(sampling, tokens=1))
        room = min(sampling.tokens, stage.context - len(prompt.ids))
        return replace(prompt, sampling=replace(sampling, tokens=room))
