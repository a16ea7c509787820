"""What a run was started with, beside its settings: the clients, their text, and the base model."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from comigs.backbone.base import load_tokenizer
from comigs.backbone.names import BUNDLED as MODELS
from comigs.backbone.names import model_source
from comigs.config.settings import RunConfig
from comigs.data.corpus import BUNDLED, ROSTER, client_names, federation_folder
from comigs.data.encoding import opening
from comigs.data.names import SPLITS
from comigs.errors import BadInput
from comigs.store.plain import MIB, from_home, read_plain, sha256_of
from comigs.store.whole import write_whole

NAME = "origin.json"
OPENING = "opening"  # the token that opens every sequence, where there is one
ENDINGS = r"\.(txt|jsonl)"
INSIDE = re.compile(  # a client's folder
    rf"(?s:.*(?i:\.txt).*|({'|'.join(SPLITS)})(?i:\.jsonl).*)"
)
WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")  # what a base is made of


def at_home(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths of text and base: they mean the same everywhere.

    Bundled names and hub ids stay names. Behind a SuperLink the paths are the devices' own.
    """
    if config.engine.name == "flower":
        return config
    data, model = config.data.name, config.model.name
    if not (BUNDLED / data).is_dir() or Path(data).is_absolute():
        data = _absolute(data)
    if not (MODELS / model).is_dir() or Path(model).is_absolute():
        model = _absolute(model)
    start = config.start and _absolute(config.start)
    traces = config.devices.traces
    if traces is not None:
        traces = str(from_home(traces).resolve())
    return replace(
        config,
        data=replace(config.data, name=data),
        model=replace(config.model, name=model),
        devices=replace(config.devices, traces=traces),
        start=start,
    )


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


def fingerprint(config: RunConfig) -> dict[str, Any]:
    """Names of the clients, and a checksum of each file of their text, the base and their traces.

    Only what this machine has: behind a SuperLink text and base are on the devices.
    """
    if config.engine.name == "flower":
        return {}
    folder = str(federation_folder(config.data.name))
    names = client_names(config.data.name)
    texts = {file: sha256_of(os.path.join(folder, file)) for file in _texts(folder, names)}
    begins = opening(load_tokenizer(config.model.name))
    found = {"clients": list(names), "text": texts, "base": _base_of(config.model.name)}
    if (traces := config.devices.traces) is not None:
        found["traces"] = {Path(traces).name: _digest(from_home(traces))}
    return found | ({} if begins is None else {OPENING: begins})


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise BadInput(f"devices.traces: {path} cannot be read: {error.strerror}") from None


def _texts(folder: str, names: Iterable[str]) -> Iterator[str]:
    """Below `folder`, the files that the clients' text may be in; each folder is listed once."""
    clients = set(names)
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in found:
        ends = re.finditer(ENDINGS, name, re.IGNORECASE)
        if any(name[: end.start()] in clients for end in ends):
            yield name
        if is_folder and name in clients:
            files = sorted(filter(INSIDE.fullmatch, os.listdir(os.path.join(folder, name))))
            yield from (os.path.join(name, file) for file in files)


def _base_of(name: str) -> dict[str, str]:
    folder = Path(model_source(name))
    if not folder.is_dir():  # of a hub: its name is all that is known without the network
        return {}
    files = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    return {path.name: sha256_of(path) for path in sorted(files)}


def write_origin(config: RunConfig, folder: Path) -> None:
    """Record the fingerprint in a new run folder."""
    write_whole(folder / NAME, _record(config))


def _record(config: RunConfig) -> str:
    return json.dumps(fingerprint(config), indent=1) + "\n"


def origin_kept(folder: Path) -> str | None:
    """Digest of the fingerprint that a run folder records; None for one of an earlier version."""
    return sha256_of(folder / NAME) if (folder / NAME).exists() else None


def origin_now(config: RunConfig) -> str | None:
    """Digest of what a run would be started with now; None where its text or base is not here."""
    try:
        return hashlib.sha256(_record(config).encode()).hexdigest()
    except BadInput:
        return None


def check_origin(config: RunConfig, folder: Path) -> None:
    """Refuse to go on with other clients, text or base than the run began with.

    A run folder without record, of an earlier version, is not checked.

    Raises:
        BadInput: what differs.
    """
    path = folder / NAME
    if not path.exists():
        return
    try:
        before = json.loads(read_plain(path, folder, 64 * MIB))
        assert isinstance(before, dict)
    except (OSError, ValueError, AssertionError):
        raise BadInput(f"{path} is damaged; it says what the run was started with") from None
    now = fingerprint(config)
    began, names = before.get("clients") or [], now.get("clients") or []
    if began != names and sorted(map(str, began)) == sorted(names):
        raise BadInput(
            f"the run in {folder} began with its clients in another order; to go on, put the list "
            f'"clients" of {path} into {federation_folder(config.data.name) / ROSTER}'
        )
    if before.get(OPENING) != now.get(OPENING):
        raise BadInput(
            f"the run in {folder} began without the token that the model's tokenizer puts before "
            "every text, as earlier versions did; start a new run"
        )
    parts = {"clients": "clients", "text": "text", "base": "base model", "traces": "traces"}
    places = {"base": config.model.name, "traces": config.devices.traces}
    for part, what in parts.items():
        if before.get(part) != now.get(part):
            where = places.get(part, config.data.name)
            raise BadInput(
                f"the {what} in {where} {_how(before.get(part), now.get(part))}: the run in "
                f"{folder} was started with another; put it back, or start a new run"
            )


def _how(before: Any, now: Any) -> str:
    """Which of the files, or names, differs first."""
    if isinstance(before, list) and isinstance(now, list):
        return f"are {', '.join(map(str, now[:5]))}, not {', '.join(map(str, before[:5]))}"
    one, two = (each if isinstance(each, dict) else {} for each in (before, now))
    name = next((n for n in sorted(one.keys() | two.keys()) if one.get(n) != two.get(n)), ROSTER)
    return f"differs in {name}"
