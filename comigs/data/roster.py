"""Which of a federation's clients take part in a run, and in which order."""

from functools import lru_cache

from comigs.config.settings import RunConfig
from comigs.data.corpus import (
    OnDisk,
    client_names,
    federation_folder,
    of_texts,
    on_disk,
    read_split,
)
from comigs.errors import BadInput, TooShort

BYTES = 16  # per token: a text of so many is long enough, whatever its tokenizer
SPARE = 8  # tokens; the last ones of a piece of text are others than those of the whole
NAMED = 5  # clients in a line


def roster(config: RunConfig) -> tuple[str, ...]:
    """Names of the clients whose text takes part.

    Raises:
        BadInput: when the config asks for more clients than the data has, or none is left.
    """
    if config.data.source is not None:  # or the text of data.name would be taken
        raise BadInput("data.source was not prepared; comigs.app.source.with_source does it")
    names, left = client_names(config.data.name), skipped(config)
    names = tuple(name for name in names if name not in left) if left else names
    if not names:
        raise BadInput(f"data.skip_small leaves no client of {config.data.name!r}: {_why(config)}")
    if config.clients is not None and config.clients > len(names):
        others = f" whose text is long enough (data.skip_small leaves out {len(left)})"
        raise BadInput(
            f"clients is {config.clients}; {config.data.name!r} has {len(names)}"
            f"{others if left else ''}: set clients={len(names)} or less, or data.name to a folder "
            f"with a text for each: comigs data prepare SOURCE --clients {config.clients} --out "
            "FOLDER makes so many of a data set"
        )
    return names[: config.clients]


def skipped(config: RunConfig) -> dict[str, int]:
    """The clients that `data.skip_small` leaves out, with the longest sequence they can hold."""
    if not config.data.skip_small:
        return {}
    return _small(config.data.name, config.model.name, config.data.seq_len, config.data.loss)


def told(config: RunConfig) -> str:
    """In one line whom `data.skip_small` leaves out; "" for nobody."""
    if not (left := skipped(config)):
        return ""
    clients = len(client_names(config.data.name))
    return f"data.skip_small leaves out {len(left):,} of {clients:,} clients: {_why(config)}"


def _why(config: RunConfig) -> str:
    left = skipped(config)
    names = ", ".join(list(left)[:NAMED]) + (", ..." if len(left) > NAMED else "")
    longest = min(left.values())
    all_kept = f"; data.seq_len={longest} keeps all" if longest else ""
    return (
        f"some split of theirs is too short for one sequence of data.seq_len={config.data.seq_len}"
        f": {names}{all_kept}"
    )


@of_texts
@lru_cache
def _small(data: str, model: str, seq_len: int, loss: str) -> dict[str, int]:
    root = federation_folder(data)

    def longest(client: str) -> int:
        try:
            found = on_disk(root, client).items()
            return min(
                _longest(one, data, client, split, model, seq_len, loss) for split, one in found
            )
        except TooShort:
            return 0

    lengths = {client: longest(client) for client in client_names(data)}
    return {client: length for client, length in lengths.items() if length < seq_len}


def _longest(
    found: OnDisk, data: str, client: str, split: str, model: str, seq_len: int, loss: str
) -> int:
    """Tokens of the longest sequence up to `seq_len` that a split holds; of chats all or none.

    Raises:
        TooShort: it holds nothing.
    """
    from comigs.data.encoding import amount_of

    if found.chats:
        return seq_len if has_an_example(data, client, split, model, seq_len, loss) else 0
    long = found.size >= BYTES * (seq_len + 1)
    if long or starts_well(data, client, split, model, seq_len):
        return seq_len
    return min(seq_len, max(0, amount_of(model, read_split(data, client, split)) - 1))


def starts_well(data: str, client: str, split: str, model: str, seq_len: int) -> bool:
    """Whether the first characters of a text hold the tokens of one sequence, and some more."""
    from comigs.data.encoding import amount_of

    needed = seq_len + 1 + SPARE
    return amount_of(model, read_split(data, client, split)[: BYTES * needed]) >= needed


def has_an_example(data: str, client: str, split: str, model: str, seq_len: int, loss: str) -> bool:
    """Whether one of the chats of a split has an answer within a sequence."""
    from comigs.data.examples import Source, encoded

    found = encoded(Source(data, client, split, model, loss))
    within = slice(1, seq_len + 1)
    return any(example.answers[within].any() for example in found if example is not None)
