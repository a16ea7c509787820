"""Models that speak one after the other, in batches that look like those of `comigs.talk.voices`.

For families whose layers cannot be shared between models in one pass, and for routers that look
further than a token in its layer: rows are the models' own passes, with the models' own caches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.families import family_of
from comigs.mixture.experts import expert_blocks, using_expert
from comigs.talk.batch import Batch, Row
from comigs.talk.voices import Voice, Voices


class Alone:
    """Voices that do not share passes."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        self.voices = tuple(voices)

    @property
    def model(self) -> PreTrainedModel:
        """The base."""
        model: PreTrainedModel = self.voices[0].model.get_base_model()
        return model

    def seat(self, rows: Sequence[int]) -> None:
        """Nothing: every row is a pass of its own."""


class Singly(Batch):
    """Rows that are written row by row."""

    _voices: Alone

    def _pass(self, rows: Sequence[Row], ids: Tensor, cache: object) -> Tensor:
        return torch.stack([self._last(row) for row in rows])

    def _last(self, row: Row) -> Tensor:
        """Logits behind the last token of a row."""
        voice = self._voices.voices[row.prompt.voice]
        new = row.ids if row.cache is None else row.ids[-1:]
        ids = torch.tensor([new], device=self._device)
        more = {} if row.cache is None else {"past_key_values": row.cache}
        with _speaking(voice):
            out = voice.model(input_ids=ids, use_cache=_may_keep(voice), **more)
        row.cache = getattr(out, "past_key_values", None)  # without one all is read again
        logits: Tensor = out.logits[0, -1]
        return logits


def _may_keep(voice: Voice) -> bool:
    """Whether keys and values of what was read are all that a voice's next token needs of it."""
    return all(block.place is None for block in expert_blocks(voice.model))


@contextmanager
def _speaking(voice: Voice) -> Iterator[Any]:
    if voice.bare:
        with voice.model.disable_adapter():
            yield
    elif voice.expert:
        with using_expert(voice.model, voice.expert):
            yield
    else:
        yield


def speakers(voices: Sequence[Voice]) -> Voices | Alone:
    """The voices in one pass, or one by one where family or routers do not allow it."""
    kind = voices[0].model.get_base_model().config.model_type
    blocks = (block for voice in voices for block in expert_blocks(voice.model))
    together = family_of(kind).together and all(block.independent for block in blocks)
    return Voices(voices) if together else Alone(voices)


def batch_of(voices: Voices | Alone, tokenizer: PreTrainedTokenizerBase) -> Batch:
    """A batch without rows yet."""
    kind = Batch if isinstance(voices, Voices) else Singly
    return kind(voices, tokenizer)
