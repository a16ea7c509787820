"""What `comigs data prepare` is told, and what of it does not go together."""

from dataclasses import dataclass, field

from comigs.errors import BadInput
from comigs.schema.build import suggest
from comigs.schema.byfile import added_to

FEWEST = 3  # examples of a client: one for each split
BY_LABEL = ("dirichlet", "pathological", "shards")
KINDS = ("iid", *BY_LABEL, "linear", "exponential", "square")
ADDED = "comigs.prepare.partitions"  # group of entry points


@dataclass(frozen=True)
class Settings:
    """The options, by the names that they have on the command line.

    Attributes:
        columns: what a column stands for, e.g. {"prompt": "question"}.
        by: column of natural ids, one client for each of its values.
        clients: how many clients, where `partition` makes them.
        partition: one of `KINDS`; None is iid.
        label: column of labels.
        alpha: concentration of the Dirichlet distribution.
        per_client: labels (pathological) or shards (shards) of each client; None is 2.
        min_examples: clients with fewer are left out; None refuses those that cannot be split.
        held_out: clients that are drawn not to train: their examples are what all others validate
            and are tested on.
        seed: of all that is drawn.
        split: of a data set that has several; None is train.
        subset: of a data set that has several.
        skip_damaged: leave out what cannot be read.
    """

    columns: dict[str, str] = field(default_factory=dict)
    by: str | None = None
    clients: int | None = None
    partition: str | None = None
    label: str | None = None
    alpha: float | None = None
    per_client: int | None = None
    min_examples: int | None = None
    held_out: int | None = None
    seed: int = 0
    split: str | None = None
    subset: str | None = None
    skip_damaged: bool = False

    @property
    def kind(self) -> str:
        """How clients are made: by natural ids, or one of `KINDS`."""
        return "natural" if self.by is not None else self.partition or "iid"

    @property
    def share(self) -> int:
        """Labels or shards of each client."""
        return 2 if self.per_client is None else self.per_client

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            BadInput: naming the option, its value and what to do.
        """
        if self.by is not None:
            if self.clients is not None or self.partition is not None:
                raise BadInput(
                    f"--by {self.by} makes one client of each of its values; leave out --clients "
                    "and --partition, or --by"
                )
        elif self.clients is None:
            raise BadInput(
                "it is not said who the clients are: --by COLUMN makes one of each value, "
                "--clients N makes N of them"
            )
        elif self.kind not in (known := [*KINDS, *added_to(ADDED, KINDS)]):
            hint = f"expected {', '.join(known)}{suggest(self.kind, known)}"
            raise BadInput(f"--partition is {self.kind!r}; {hint}")
        self._check_needs()
        for option, value, least in (
            ("--clients", self.clients, 1),
            ("--per-client", self.per_client, 1),
            ("--min-examples", self.min_examples, FEWEST),
            ("--held-out", self.held_out, 1),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise BadInput(f"{option} is {value}; it must be at least {least}")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise BadInput(f"--alpha is {self.alpha:g}; it must be a number above 0")

    def _check_needs(self) -> None:
        if self.kind in BY_LABEL and self.label is None:
            raise BadInput(f"--partition {self.kind} needs --label COLUMN, the column of labels")
        if self.kind == "dirichlet" and self.alpha is None:
            raise BadInput(
                "--partition dirichlet needs --alpha, e.g. --alpha 0.5; "
                "the smaller, the more the clients differ"
            )
        if self.kind != "dirichlet" and self.alpha is not None:
            raise BadInput(f"--alpha is {self.alpha:g}; only --partition dirichlet has one")
        if self.kind not in ("pathological", "shards") and self.per_client is not None:
            raise BadInput(
                f"--per-client is {self.per_client}; only --partition pathological (labels) and "
                "shards (shards) have it"
            )


def columns_of(text: str | None) -> dict[str, str]:
    """`prompt=question,completion=answer` as {"prompt": "question", "completion": "answer"}.

    Raises:
        BadInput: a part is not NAME=COLUMN, or a name is there twice.
    """
    named: dict[str, str] = {}
    for part in text.split(",") if text is not None else ():
        name, _, column = (word.strip() for word in part.partition("="))
        if not name or not column or name in named:
            raise BadInput(
                f"--columns is {text!r}; expected each name once, e.g. "
                "prompt=question,completion=answer"
            )
        named[name] = column
    return named
