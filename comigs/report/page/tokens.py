"""The token view as the page carries it: compact JSON that no text can break out of."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from comigs.evaluation.trace import Trace

MOST = 2_400_000  # bytes of all gates on a page; whole layers are left out beyond that
LONGEST = 80  # characters of one token
MANY = 12  # layers; more are not told one by one


@dataclass(frozen=True)
class View:
    """Text of one client: `pieces` are that of each of the tokens of `trace`."""

    name: str
    pieces: Sequence[str]
    trace: "Trace"


@dataclass(frozen=True)
class Looks:
    """What the page shows of single tokens, and why it does not show the rest."""

    views: Sequence[View]
    missing: Sequence[str] = ()


def to_script(views: Sequence[View]) -> str:
    """The views as JSON for a <script> element: no character of it means anything in HTML.

    A layer's gates are bytes, 0 to 255 for 0 to 1, in the order layer, token, expert.
    """
    room = MOST // max(1, len(views))
    text = json.dumps([_object(view, room) for view in views], separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _object(view: View, room: int) -> dict[str, Any]:
    trace = view.trace
    layers, tokens, experts = trace.gates.shape
    shown = evenly(layers, max(1, room * 3 // 4 // (tokens * experts)))
    gates = (trace.gates[shown] * 255).round().clamp(0, 255).byte()
    return {
        "name": view.name,
        "note": told(trace),
        "experts": list(trace.experts),
        "routed": trace.routed and experts > 1,
        "layers": [number + 1 for number in shown],
        "pieces": [piece[:LONGEST] for piece in view.pieces],
        "begins": list(trace.begins),
        "gates": base64.b64encode(gates.numpy().tobytes()).decode(),
        "loss": _numbers(trace.loss),
        "base": _numbers(trace.base),
        "alone": None if trace.generalist is None else _numbers(trace.generalist),
    }


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly."""
    kept = min(count, most)
    return [i * count // kept for i in range(kept)]


def told(trace: "Trace") -> str:
    """The whole of a view in a sentence or two."""
    both = (trace.loss - trace.base).isfinite()
    text = f"None of these {len(trace.ids)} tokens of test text is measured."
    if both.any():
        loss, base = (float(each[both].mean()) for each in (trace.loss, trace.base))
        better = float((trace.loss < trace.base)[both].float().mean())
        text = (
            f"These {len(trace.ids)} tokens of test text cost {loss:.2f} nats each, with the bare "
            f"base {base:.2f}; {better:.0%} of them are foretold better than by the base."
        )
    if len(trace.experts) < 2:
        return f"This model has one expert, so that nothing chooses between experts. {text}"
    if not trace.routed:
        count = len(trace.experts)
        return f"This model has no router: each of its {count} experts has an equal share. {text}"
    shared = sum(name.startswith("generalist_") for name in trace.experts)
    if not 0 < shared < len(trace.experts):
        return text
    layers = trace.gates[..., :shared].sum(-1).mean(-1)
    share = float(layers.mean())
    each = ", ".join(f"{value:.0%}" for value in layers.tolist()) if len(layers) <= MANY else ""
    by_layer = f" (layer by layer {each})" if each else ""
    return (
        f"Generalists carry {share:.0%} of the gate weight{by_layer}, specialists {1 - share:.0%}. "
        + text
    )


def _numbers(values: "Tensor") -> list[float | None]:
    return [round(value, 2) if math.isfinite(value) else None for value in values.tolist()]
