"""What a method is: a share mask, an aggregator, and a layout of the experts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from comigs.config import ExpertsConfig


def generalists(name: str) -> bool:
    """Share mask: generalist experts, with the attention LoRA that belongs to the first."""
    return ".generalist_" in name


def as_configured(experts: ExpertsConfig) -> ExpertsConfig:
    return experts


def all_generalists(experts: ExpertsConfig) -> ExpertsConfig:
    """The same number of experts, every one of them a generalist."""
    return replace(experts, generalists=experts.total, specialists=0)


def all_specialists(experts: ExpertsConfig) -> ExpertsConfig:
    """The same number of experts, every one of them a specialist."""
    return replace(experts, generalists=0, specialists=experts.total)


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        name: as in `method: <name>`.
        paper: where it comes from.
        summary: one line for `comigs methods`.
        shares: share mask: does the tensor of this name travel? (tensor names: `comigs.adapters`)
        aggregator: file in server/aggregation that combines what travels.
        experts: maps the configured experts of one client to the method's layout.
        trains: whether anything is trained.
        pooled: whether everybody's text is trained on in one place.
    """

    name: str
    paper: str
    summary: str
    shares: Callable[[str], bool] = generalists
    aggregator: str = "mean"
    experts: Callable[[ExpertsConfig], ExpertsConfig] = as_configured
    trains: bool = True
    pooled: bool = False
