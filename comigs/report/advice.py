"""Whether sharing is likely to help: a rule of thumb from how much the clients' words differ.

The bounds lie around what was measured on each client's own text (docs/results.md; divergence
beyond chance in brackets): averaging everything lost 17 % against training alone on topics (0.26),
was even on domains (0.46), and had three times the perplexity on multilingual (0.84).
"""

from comigs.prepare.describe import Description

ALIKE, APART = 0.15, 0.6  # bits beyond chance
SHORT = 0.5  # bits by chance, above which a text is too short to tell
CAUTION = "This is a rule of thumb from words alone; only runs tell."


def advice(found: Description) -> str:
    """Whether sharing is likely to help, and why, in plain sentences; "" for a single client."""
    others = [value for i, row in enumerate(found.divergence) for value in row[:i]]
    if not others:
        return ""
    mean = sum(others) / len(others)
    beyond = max(0.0, mean - found.chance)
    reason = (
        f"their words diverge by {mean:.2f} on average, where two halves of one client's text "
        f"differ by {found.chance:.2f}"
    )
    if found.chance > SHORT:
        return (
            f"There is too little text to say whether sharing is likely to help: {reason}, more "
            f"than words can tell. {CAUTION}"
        )
    if beyond < ALIKE:
        return (
            f"Sharing is likely to help: the clients write alike ({reason}), so that what one "
            f"learns suits the others. {CAUTION}"
        )
    if beyond > APART:
        return (
            "Averaging everything is likely to hurt on each client's own text: the clients hardly "
            f"share words ({reason}), as in the bundled languages, where it tripled perplexity. "
            "Take specialists (method=comigs-2s) or local, or comigs-adaptive, which finds out by "
            f"itself; for everybody's text (data.target=mixture) sharing helps even so. {CAUTION}"
        )
    return (
        f"Sharing may help or hurt on each client's own text: the clients differ ({reason}). Of "
        "two bundled federations like this, averaging lost 17 % against local on topics and was "
        "even on domains. Compare local with comigs, or take comigs-adaptive, which finds out by "
        f"itself; for everybody's text (data.target=mixture) sharing helps. {CAUTION}"
    )
