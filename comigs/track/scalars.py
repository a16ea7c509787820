"""The numbers of an event that trackers draw, by tag."""

from collections.abc import Iterable

from comigs.store.events import ClientTrained, Evaluated, Event, RoundDone

Scalars = dict[str, float]


def scalars_of(event: Event) -> tuple[int | None, Scalars]:
    """The round, None for the final test, and the numbers; {} for events without any."""
    number: int | None = None
    found: dict[str, float | None] = {}
    match event:
        case ClientTrained():
            number = event.round
            found = {f"loss/{event.name}": event.loss, f"valid_ppl/{event.name}": event.valid_ppl}
            found |= {f"{name}/{event.name}": value for name, value in _metrics(event)}
        case RoundDone():
            number = event.round
            found = {
                f"round/{key}": getattr(event, key) for key in ("seconds", "bytes_up", "bytes_down")
            }
            found |= {"mean/loss": event.loss, "mean/valid_ppl": event.valid_ppl}
            found |= {f"mean/{name}": value for name, value in _metrics(event)}
        case Evaluated():
            found = {f"test_ppl/{event.name}": event.after}
    return number, {tag: value for tag, value in found.items() if value is not None}


def _metrics(event: ClientTrained | RoundDone) -> Iterable[tuple[str, float]]:
    return (event.metrics or {}).items()
