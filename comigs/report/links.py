"""Files inside a page."""

import base64


def as_link(text: str) -> str:
    """A data URI of CSV text."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()
