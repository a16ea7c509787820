"""What was run, in words."""

from comigs.methods import own_methods
from comigs.report.page.run import Run

NAMED = 6  # clients; more are counted


def what_was_run(run: Run) -> str:
    """A sentence or two for somebody who has not read the settings; "" without settings."""
    config, known = run.config, own_methods().get(run.method)
    model, data = (config.get(key) or {} for key in ("model", "data"))
    if not model or not data:
        return ""
    names = run.clients
    who = _count(len(names), "client") if names else "Clients"
    who += f" ({', '.join(names)})" if 1 < len(names) <= NAMED else ""
    text = "everybody's text" if data.get("target") == "mixture" else "its own kind of text"
    counts = (
        f"What counts is how well each client's model foretells {text} that nobody trained on: its "
        "perplexity, about the number of tokens that it wavers between. Lower is better."
    )
    of = f"text of {data.get('name')}"
    if known and not known.trains:
        return f"{who} tested the language model {model.get('name')} as it is on {of}. {counts}"
    own = "all of it in one place" if known and known.pooled else "each its own, which stays there"
    rounds, each = config.get("rounds"), config.get("local_steps")
    steps = f"{_count(rounds, 'round')} of {_count(each, 'local step')}"
    how = f"{run.method} ({known.summary})" if known else run.method
    return (
        f"{who} adapted the language model {model.get('name')} to {of}, {own}: {steps} by the "
        f"method {how}. {counts}"
    )


def _count(number: int | None, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}" if number is not None else f"{what}s"
