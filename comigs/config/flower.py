"""The configuration's `flower` section: where the federation of real devices is reached."""

import re
from dataclasses import dataclass

from comigs.schema.rules import require

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # safe as the name of a folder


@dataclass(frozen=True)
class FlowerConfig:
    superlink: str | None = None
    """Connection of Flower's config.toml; null: its default."""
    keyless: bool = False
    """Whether nodes have no keys, and another number whenever they start."""
    run: str | None = None
    """Folder of the run on server and devices; null: chosen at submission."""

    def __post_init__(self) -> None:
        for key, value in {"superlink": self.superlink, "run": self.run}.items():
            good = value is None or re.fullmatch(NAME, value)
            require(bool(good), f"flower.{key}", value, "letters, digits, dots, dashes, or null")
