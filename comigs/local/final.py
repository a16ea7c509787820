"""What one device does at the end: its final model, and the test."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from comigs.backbone.base import load_base, load_tokenizer
from comigs.config.settings import ClientConfig
from comigs.data.tokens import amount
from comigs.evaluation.metrics import measured
from comigs.evaluation.perplexity import bits_per_byte, evaluate
from comigs.federation.clients import data_of
from comigs.federation.run import Client
from comigs.influence.selection import chosen_of, narrowed
from comigs.local.receive import finish, receive
from comigs.local.round import restore
from comigs.local.swa import mean_of
from comigs.messages.fields import METRIC
from comigs.methods.arrival import Arrival
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, load_adapter_tensors
from comigs.store.state import write_state


def final_evaluation(
    client: Client, state_round: int, shared: Mapping[str, Tensor], root: Path
) -> list[dict[str, Any]]:
    """Test perplexities of a client: of the bare base, before and after the last averaging.

    The only place that reads a test split. One row per test stream (several when pooled). The final
    model is saved in `root`/final.
    """
    run, own, method, data = client.run, client.config, client.method, data_of(client)
    base = load_base(own.model.name, client.dtype, client.compute)
    rows: list[dict[str, Any]] = [
        {"name": name, "test_tokens": amount(test), "pretrained": evaluate(base, test, own)}
        for name, test in data.tests.items()
    ]
    if not method.trains:
        valid = evaluate(base, data.valid, own)
        return [
            row
            | {"valid": valid, "before": row["pretrained"], "after": row["pretrained"]}
            | {"trainable": 0}
            | _more_about(base, data.tests[row["name"]], row["pretrained"], own)
            for row in rows
        ]
    model, moments, tensors, meta = restore(client, root, state_round)
    trainable = sum(p.numel() for n, p in adapter_parameters(model).items() if method.learns(n))
    trainable *= 2 if method.twin else 1
    for row in rows:
        row["before"] = evaluate(model, data.tests[row["name"]], own)
    kept = dict(meta.get("kept", {}))
    number, last = client.number, own.rounds + 1
    data = narrowed(client, data, chosen_of(client, root, state_round))
    arrival = Arrival(model, shared, moments, data, own, number, last, kept, tensors)
    load_adapter_tensors(model, mean := mean_of(client, root, state_round))
    extra = receive(run, arrival) | finish(run, arrival)
    write_state(root / "final", state_round, {"tensors": adapter_tensors(model)}, meta)
    valid = evaluate(model, data.valid, own)
    for row in rows:
        same = not shared and not method.finish and not mean
        test = data.tests[row["name"]]
        after = row["before"] if same else evaluate(model, test, own)
        row |= {"after": after, "valid": valid, "trainable": trainable, **extra}
        row |= _more_about(model, test, after, own)
    return rows


def _more_about(
    model: nn.Module, test: Tensor, after: float, config: ClientConfig
) -> dict[str, float]:
    """What else is told of the final model on a test stream; some metrics are none of a base."""
    bits = bits_per_byte(after, test, load_tokenizer(config.model.name))
    more = measured(config.log.metrics or (), model, test, config).items()
    return {"bits_per_byte": bits} | {f"{METRIC}{n}": v for n, v in more if math.isfinite(v)}
