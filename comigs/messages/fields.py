"""Every number that a client tells: it sends nothing else, and the server takes nothing else."""

from collections.abc import Iterable

METRIC = "metric."  # in front of the name of a number that `log.metrics` asks for
MIDPOINT = "midpoint/"  # in front of the name of a tensor: the gradient of it (`cobo`)
ACTIVATIONS = "activations/"  # in front of a mixture's path: how often tokens chose each expert
BESIDES = (MIDPOINT, ACTIVATIONS)  # of what travels beside an update and is no part of it
METRICS = frozenset(  # of a training round
    {
        "round", "loss", "balance", "valid_ppl", "tokens", "steps", "router_steps",
        "router_tokens", "num-examples", "seconds", "train_seconds", "eval_seconds",
        "peer_evaluations", "peer_evaluation_tokens", "fetches",
    }
)  # fmt: skip
ROW = frozenset(  # of a test stream in the final evaluation
    {
        "name", "test_tokens", "pretrained", "valid", "before", "after", "trainable",
        "peer_evaluations", "peer_evaluation_tokens",
        "fused_local", "fused_global", "fusion_evaluations", "bits_per_byte",
    }
)  # fmt: skip
ABOUT = frozenset(
    {"client", "name", "rounds", "shapes", "num-examples"}
)  # of a client that introduces itself


def with_metrics(fields: frozenset[str], names: Iterable[str]) -> frozenset[str]:
    """`fields`, and the numbers that `log.metrics` asks for."""
    return fields | {f"{METRIC}{name}" for name in names}


def metric_of(key: str) -> str:
    """The metric that one of several numbers belongs to: `routing` of `routing/2/entropy`."""
    return key.partition("/")[0]


def unknown(keys: Iterable[str], known: frozenset[str]) -> str | None:
    """The first of `keys` that is neither `known` nor a part of a metric that is, or None."""

    def is_known(key: str) -> bool:
        return key in known or (key.startswith(METRIC) and metric_of(key) in known)

    return next((key for key in sorted(keys) if not is_known(key)), None)
