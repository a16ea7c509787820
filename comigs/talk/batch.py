"""Rows that are written together: each step gives every row one token, in one pass."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.errors import ComigsError
from comigs.talk.cache import append, empty_cache, keep
from comigs.talk.sampling import Sampling, chooser
from comigs.talk.writing import Writer

Reason = Literal["stop", "length", "error"]


class Speakers(Protocol):
    """Models over one base: `comigs.talk.voices` or `comigs.talk.alone`."""

    @property
    def model(self) -> Any:
        """What maps tokens to logits."""

    def seat(self, rows: Sequence[int]) -> None:
        """Tell the voice of each row of the passes that follow."""


@dataclass(frozen=True)
class Prompt:
    """A text to be continued.

    Attributes:
        voice: who writes.
        ids: its tokens, at least one.
        ends: tokens that end what is written.
        strip: whether space at the start of what is written is left out.
        stop: texts that end it, beside those of `sampling`.
    """

    voice: int
    ids: tuple[int, ...]
    sampling: Sampling
    ends: frozenset[int] = frozenset()
    strip: bool = False
    stop: tuple[str, ...] = ()


class Row:
    """A prompt on its way.

    Attributes:
        ids: its tokens, and those written.
        reason: why it has ended, error if its logits are not numbers; None while it goes on.
        cache: its own, where rows do not share passes (`comigs.talk.alone`).
    """

    def __init__(
        self, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> None:
        self.prompt, self.ids = prompt, list(prompt.ids)
        self.cache: Any = None
        self.reason: Reason | None = None
        self._choose = chooser(prompt.sampling, device)
        stop = (*prompt.sampling.stop, *prompt.stop)
        self._writer = Writer(tokenizer, prompt.ids, stop, prompt.strip)

    @property
    def written(self) -> int:
        """Tokens written, with the one that ended it."""
        return len(self.ids) - len(self.prompt.ids)

    def take(self, logits: Tensor) -> str:
        """Choose the next token by its logits (V). Returns the text that is sure now."""
        token = self._choose(self.ids, logits)
        if token is None:
            self.reason = "error"
            return self._writer.end()
        self.ids.append(token)
        if token in self.prompt.ends:
            self.reason = "stop"
            return self._writer.end()
        text = self._writer.add(token)
        if self._writer.stopped:
            self.reason = "stop"
        elif self.written >= self.prompt.sampling.tokens:
            self.reason = "length"
            text += self._writer.end()
        return text


class Batch:
    """Rows of several voices; they join and leave between steps.

    Attributes:
        rows: those that are being written, voice by voice.
    """

    def __init__(self, voices: Speakers, tokenizer: PreTrainedTokenizerBase) -> None:
        self.rows: list[Row] = []
        self._voices, self._tokenizer = voices, tokenizer
        self._device = voices.model.device
        self._cache = empty_cache()

    @torch.inference_mode()
    def join(self, prompts: Sequence[Prompt]) -> list[tuple[Row, str]]:
        """Read new prompts. Returns their rows with their first text."""
        rows = [Row(prompt, self._tokenizer, self._device) for prompt in prompts]
        width = max(len(row.ids) for row in rows)
        filled = [[0] * (width - len(row.ids)) + row.ids for row in rows]
        cache = empty_cache()
        self._voices.seat([row.prompt.voice for row in rows])
        logits = self._pass(rows, torch.tensor(filled, device=self._device), cache)
        if self.rows:
            append(self._cache, cache)
        else:
            self._cache = cache
        self.rows += rows
        said = [(row, row.take(own)) for row, own in zip(rows, logits, strict=True)]
        self._seat()
        return said

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """Write one token in each row. Returns every row with its new text."""
        ids = torch.tensor([row.ids[-1:] for row in self.rows], device=self._device)
        logits = self._pass(self.rows, ids, self._cache)
        said = [(row, row.take(own)) for row, own in zip(self.rows, logits, strict=True)]
        if any(row.reason for row in self.rows):
            self._seat()
        return said

    def drop(self, rows: Iterable[Row]) -> None:
        """Let rows go before they have ended."""
        gone = set(map(id, rows))
        if any(id(row) in gone for row in self.rows):
            self._seat(gone)

    def _seat(self, gone: Iterable[int] = ()) -> None:
        """Let rows go that have ended, and put the others in the order of their voices."""
        stay = [i for i, row in enumerate(self.rows) if not row.reason and id(row) not in gone]
        stay.sort(key=lambda i: self.rows[i].prompt.voice)
        if stay and stay != list(range(len(self.rows))):
            keep(self._cache, stay, max(len(self.rows[i].ids) for i in stay) - 1)
        self.rows = [self.rows[i] for i in stay]
        if self.rows:
            self._voices.seat([row.prompt.voice for row in self.rows])
        else:
            self._cache = empty_cache()

    def _pass(self, rows: Sequence[Row], ids: Tensor, cache: object) -> Tensor:
        """Logits behind the last of some tokens (T x L, filled up on the left): T x V."""
        lengths = torch.tensor([len(row.ids) for row in rows])
        width = int(lengths.max())
        places = torch.arange(width) - (width - lengths)[:, None]
        even = bool((lengths == width).all())
        out = self._voices.model(
            input_ids=ids,
            attention_mask=None if even else (places >= 0).long().to(self._device),
            position_ids=places.clamp(min=0)[:, -ids.shape[1] :].to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits


def write(batch: Batch, prompts: Sequence[Prompt], at_once: int = 16) -> Iterator[tuple[int, str]]:
    """Continue all prompts, at most `at_once` in a pass. Yields (number of the prompt, text).

    Raises:
        ComigsError: a model's logits are not numbers.
    """
    waiting = list(enumerate(prompts))[::-1]
    numbers: dict[int, int] = {}
    while waiting or batch.rows:
        said = batch.step() if batch.rows else []
        free = at_once - len(batch.rows)
        new = [waiting.pop() for _ in range(min(free, len(waiting)))]
        if new:
            first = batch.join([prompt for _, prompt in new])
            numbers |= {id(row): number for (row, _), (number, _) in zip(first, new, strict=True)}
            said += first
        for row, text in said:
            if row.reason == "error":
                raise ComigsError("the model's logits are not numbers: its training diverged")
            yield numbers[id(row)], text
