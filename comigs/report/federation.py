"""`comigs data describe --page`: one self-contained page about the clients of a federation."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader

from comigs.errors import BadInput
from comigs.prepare.describe import Description
from comigs.report.advice import advice
from comigs.report.matrix import heat_map
from comigs.store.plain import MIB, read_plain
from comigs.store.whole import write_whole

MANIFEST = "manifest.json"  # of comigs data prepare
LABELS = 12  # columns of the mix


def write_federation(
    found: Description, labels: Mapping[str, Mapping[str, int]], title: str, path: Path
) -> None:
    """Write the page.

    Args:
        labels: how many examples of each label a client has; empty where nobody knows.
    """
    templates = Environment(
        loader=PackageLoader("comigs.report", "."), autoescape=True, trim_blocks=True
    )
    page = templates.get_template("federation.html.j2").render(
        title=title,
        splits=found.splits,
        clients=found.clients,
        chats=any(row.chats for row in found.splits),
        advice=advice(found),
        labels=_shares(labels),
        compared=len(found.divergence),
        picture=heat_map(found.clients, found.divergence) if len(found.divergence) > 1 else "",
    )
    write_whole(path, page)


def labels_of(folder: Path) -> dict[str, dict[str, int]]:
    """How many examples of each label every client has, by the manifest; {} without labels.

    Raises:
        BadInput: the manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        clients = json.loads(read_plain(path, folder, 64 * MIB))["clients"]
        mixes = {str(each["client"]): dict(each["labels"]) for each in clients}
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path} is damaged; make the data anew, or take the file out") from None
    return {client: mix for client, mix in mixes.items() if mix}


def _shares(labels: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    """The share of each of the most frequent labels, client by client."""
    total: Counter[str] = Counter()
    for mix in labels.values():
        total.update(mix)
    most = [label for label, _ in total.most_common(LABELS)]
    return {
        client: {label: mix.get(label, 0) / sum(mix.values()) for label in most}
        for client, mix in labels.items()
        if mix
    }
