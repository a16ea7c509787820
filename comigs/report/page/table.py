"""The final table as CSV, inside the page."""

import csv
import io
from collections.abc import Mapping, Sequence

from comigs.report.links import as_link
from comigs.report.page.run import NUMBERS, Run


def csv_link(runs: Sequence[Run], alone: Mapping[str, Mapping[str, float]]) -> str:
    """A data URI with a row for each client of each run.

    Args:
        alone: by the label of a run, its clients' perplexity by training alone.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", "method", "client", *NUMBERS, "alone"])
    for run in runs:
        for row in run.rows:
            other = alone.get(run.label, {}).get(row["name"])
            numbers = [row.get(key) for key in NUMBERS]
            writer.writerow([_plain(run.label), run.method, _plain(row["name"]), *numbers, other])
    return as_link(text.getvalue())


def _plain(text: str) -> str:
    """What a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
