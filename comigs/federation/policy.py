"""What the owner of a device allows a server: `device.yaml` beside the device's text."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from comigs.errors import BadInput
from comigs.schema.build import Origin, build
from comigs.schema.rules import at_least, positive, require
from comigs.store.plain import MIB, read_plain

FILE = "device.yaml"


@dataclass(frozen=True)
class Policy:
    """Limits that hold whatever a server asks; the defaults are those without a file."""

    methods: list[str] | None = None  # names of `comigs methods`; null: all
    require: Literal["none", "secagg", "dp", "either"] = "none"  # protection of what is sent
    threshold: int = 2  # smallest privacy.threshold of secagg; always more than half, too
    clip: float | None = None  # greatest privacy.clip where dp is required; null: any
    data: list[str] | None = None  # folders of text; null: the file's own, or /data without one
    models: list[str] = field(default_factory=lambda: ["/models"])  # folders, or hub ids
    rounds: int = 100_000
    steps: int = 10_000  # local steps, or router steps, of a round
    tokens: float = 1e9  # of a round: steps x batch_size x data.seq_len
    threads: int = 256
    hours: float = 24.0  # for one message

    def __post_init__(self) -> None:
        at_least("threshold", self.threshold, 2)
        positive("clip", self.clip)
        for key in ("rounds", "steps", "threads"):
            value = getattr(self, key)
            require(1 <= value <= 10**6, key, value, "between 1 and a million")
        for key in ("tokens", "hours"):
            positive(key, getattr(self, key))
        if self.methods is not None:
            from comigs.methods import method_names

            for name in self.methods:
                known = ", ".join(method_names())
                require(name in method_names(), "methods", name, f"one of {known}")


def read_policy(path: Path) -> Policy:
    """The policy that a file holds.

    Raises:
        BadInput: one line that names the file, the key and the fix.
    """
    try:
        tree: Any = yaml.safe_load(read_plain(path, path.parent, MIB).decode("utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{path}{where}: not valid YAML") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({type(error).__name__})") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: expected `key: value` lines")
    for one in fields(Policy):
        if (
            one.name in tree
            and tree[one.name] is None
            and one.name not in ("methods", "clip", "data")
        ):
            raise BadInput(f"{path}: {one.name} is null; give a value, or leave the line out")
    try:
        policy: Policy = build(Policy, tree, Origin(str(path), {}))
    except OverflowError:
        raise BadInput(f"{path}: a number is too large") from None
    return policy if policy.data else replace(policy, data=[str(path.parent.resolve())])
