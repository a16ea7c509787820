"""How the next token is chosen: greedily, or drawn from what temperature, top-k and top-p leave."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from comigs.errors import BadInput
from comigs.schema.bounds import WORD
from comigs.seeds import derive

LIMITS = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, WORD),
    "repetition_penalty": (0.01, 10),
    "seed": (0, WORD),
    "tokens": (1, WORD),
}
COLDEST = 1e-6  # a temperature below it divides logits to what is no number


@dataclass(frozen=True)
class Sampling:
    """What is asked of one text.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token.
        top_p: draw from the likeliest tokens with this share of the probability together.
        top_k: draw from so many tokens; 0 for all.
        repetition_penalty: divides the logits of tokens that were there already; 1 for none.
        seed: of the draws; the same text follows from the same seed, whoever writes beside it.
        tokens: write at most so many.
        stop: texts that end it; they are not written.
    """

    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.0
    seed: int = 0
    tokens: int = 60
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: BadInput, a value is out of bounds."""
        for field in fields(self):
            if field.name in LIMITS:
                value = getattr(self, field.name)
                least, most = LIMITS[field.name]
                positive = field.name == "top_p"
                if not least <= value <= most or (positive and not value):
                    bound = "above 0" if positive else f"at least {least}"
                    raise BadInput(
                        f"{field.name} is {value}; it must be {bound} and at most {most}",
                        field.name,
                    )
        if 0 < self.temperature < COLDEST:
            raise BadInput(
                f"temperature is {self.temperature}; it must be 0 or at least {COLDEST}",
                "temperature",
            )
        if not all(self.stop):
            raise BadInput("stop is an empty text", "stop")


Choose = Callable[[list[int], Tensor], int | None]


def chooser(sampling: Sampling, device: torch.device) -> Choose:
    """What maps the tokens so far and the logits behind them (V) to the next token.

    It gives None where the logits are not numbers, as those of a model whose training diverged.
    """
    steps: list[LogitsProcessor] = []
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature:
        if sampling.temperature != 1:
            steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
    draws = torch.Generator(device).manual_seed(derive(sampling.seed, "generate"))

    def choose(ids: list[int], logits: Tensor) -> int | None:
        scores = logits[None].float()
        if steps:
            before = torch.tensor([ids], device=device)
            for step in steps:
                scores = step(before, scores)
        if not math.isfinite(scores.max()):
            return None
        if not sampling.temperature:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=draws))

    return choose
