"""Test text of finished runs' clients, token by token, for the page about them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from peft import PeftModel

from comigs.backbone.base import load_base, load_tokenizer
from comigs.config.load import read_config
from comigs.errors import ComigsError, one_line
from comigs.evaluation.trace import passages, pieces, trace
from comigs.federation.clients import data_of
from comigs.federation.run import Client
from comigs.hardware import resolve_device, use_device
from comigs.report.page.tokens import Looks, View
from comigs.use.generate import open_client

MOST = 8  # clients on one page


def look_at(folders: Sequence[Path], tokens: int = 256, device: str = "auto") -> Looks:
    """Read test text with the final models of each run's first clients, eight in all.

    Args:
        tokens: of each client.
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.

    Returns:
        The views; of what cannot be opened the reason, in `missing`.

    Raises:
        BadInput: there is no such device.
    """
    use_device(resolve_device(device))
    views: list[View] = []
    missing: list[str] = []
    for folder in folders:
        try:
            if read_config(folder).engine.name == "flower":
                missing.append(f"{folder}: its models and texts are on the devices")
                continue
            label = f"{folder.resolve().name}: " if len(folders) > 1 else ""
            first, model = open_client(folder, 0)
            views += _views(first, model, tokens, label)
            count = len(first.run.names)
            shown = min(count, max(1, MOST // len(folders)))
            for number in range(1, shown):
                views += _views(*open_client(folder, number), tokens, label)
            if shown < count:
                missing.append(f"{label}{count - shown} of {count} clients; a page holds {MOST}")
        except (ComigsError, OSError) as error:
            missing.append(str(error) if isinstance(error, ComigsError) else one_line(error))
    if len(views) > MOST:
        missing.append(f"{len(views) - MOST} texts; a page holds {MOST}")
    return Looks(views[:MOST], missing)


def _views(client: Client, model: PeftModel, tokens: int, label: str) -> Iterator[View]:
    """One for each test stream of the client."""
    config = client.config
    base = load_base(config.model.name, client.dtype, client.compute)
    tokenizer = load_tokenizer(config.model.name)
    for name, text in islice(data_of(client).tests.items(), MOST):
        found = trace(model, base, passages(text, tokens, config.data.seq_len))
        ends = [*found.begins[1:], len(found.ids)]
        words = [
            piece
            for begin, end in zip(found.begins, ends, strict=True)
            for piece in pieces(tokenizer, found.ids[begin:end].tolist())
        ]
        yield View(f"{label}{name}", words, found)
