"""`comigs join`: a client that was not there gets a model of its own from a run's generalists.

Two runs of the newcomer alone, equal but for their start: the run's generalists, or the random
start that every run has.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comigs.app.result import RunResult
from comigs.app.run import resume, run
from comigs.config.load import load_config, read_config, to_dict
from comigs.config.model import own
from comigs.config.settings import RunConfig
from comigs.data.names import EXAMPLES, SUFFIXES
from comigs.data.roster import roster
from comigs.errors import BadInput
from comigs.store.metrics import final_rows
from comigs.store.plain import sha256_of
from comigs.store.whole import write_whole

if TYPE_CHECKING:
    from comigs.track.tracker import Tracker

    Following = Callable[[str], AbstractContextManager[Sequence[Tracker]]]

JOINED, ALONE = "joined", "alone"
NOTE = "join.json"  # what was asked for
PATIENCE = 3  # evaluations on validation text, after the best, that end a run
KEPT = ("experts", "router", "train", "rounds", "local_steps", "batch_size", "seed")


@dataclass(frozen=True)
class Joined:
    """What a newcomer's models do on its own test text, in perplexity.

    Attributes:
        generalist: the run's (first) generalist as it came, alone.
        alone: the newcomer's own mixture of the same size, without the run.
        joined: the mixture that began with the run's generalists.
    """

    name: str
    base: float
    generalist: float
    alone: float
    joined: float


def join(
    source: Path,
    data: Path,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    specialists: int = 1,
    device: str | None = None,
    following: "Following" = lambda name: nullcontext(()),
) -> Joined:
    """Train the newcomer of `data` from the generalists of the run `source`.

    What `out` holds of an interrupted call is continued.

    Args:
        data: its text or chats, or a folder with those of one client, as in `data.name`.
        out: gets the run folders `joined` and `alone`.
        specialists: its own experts.
        device: profile of its device; None: no device is simulated.
        following: given joined or alone, the trackers of that run.

    Raises:
        BadInput: the run, the text or a setting is unusable; `out` is of a call with others.
    """
    if not data.is_dir() and not _is_text(data):
        raise BadInput(f"--data is {data}; give a .txt or .jsonl file, or a folder with some")
    texts = data if data.is_dir() else out / "data"
    trees = settings_of(source, texts.resolve(), specialists, device)
    _take(out, data, {"settings": trees[JOINED], "overrides": list(overrides)})
    for tree in trees.values():
        config = load_config(tree, overrides)
        if config.start != tree.get("start"):
            raise BadInput("start is the run that is joined; give another RUN_DIR", "start")
        _check_one(config)
        if config.rounds > PATIENCE:
            tree["stop"] = {"patience": PATIENCE}
    results = {n: _done(out / n, tree, overrides, following) for n, tree in trees.items()}
    [joined], [alone] = results[JOINED].table, results[ALONE].table
    return Joined(
        joined["name"],
        joined["pretrained"],
        _generalist(results[JOINED]),
        alone["after"],
        joined["after"],
    )


def settings_of(
    source: Path, data: Path, specialists: int, device: str | None
) -> dict[str, dict[str, Any]]:
    """The configurations of the two runs: as the run `source` trained a client, on other text."""
    from comigs.federation.run import resolve

    there = resolve(read_config(source))
    tree = to_dict(there.config)
    first = there.client(0)
    shared = first.experts.generalists
    if not shared:
        raise BadInput(
            f"{source} is of method {there.method.name!r}, which has no generalists to build on"
        )
    kept = {key: tree[key] for key in KEPT}
    kept["experts"] |= {"specialists": specialists, "rank": first.experts.rank, "routed": True}
    kept["experts"]["generalists"] = shared
    kept["model"] = tree["model"] | {"dtype": first.dtype, "compute": "auto"}
    kept["data"] = {"name": str(data), **_of_data(there.config)}
    if device is not None:
        kept["devices"] = {"profiles": {device: 1}}
    kept["method"] = "comigs"
    joined = kept | {"name": JOINED, "start": str(source.resolve())}
    return {JOINED: joined, ALONE: kept | {"name": ALONE}}


def _check_one(config: RunConfig) -> None:
    if len(names := roster(config)) != 1:
        raise BadInput(
            f"--data has {len(names)} clients; a newcomer joins by itself: give its text"
        )


def _of_data(config: RunConfig) -> dict[str, Any]:
    """How text is read: as the run's first client does."""
    keys = ("loss", "seq_len", "train_tokens", "valid_tokens", "test_tokens")
    return {key: own(getattr(config.data, key), 0) for key in keys}


def _is_text(data: Path) -> bool:
    return data.is_file() and data.name.lower().endswith(SUFFIXES + EXAMPLES)


def _take(out: Path, data: Path, asked: dict[str, Any]) -> None:
    """Note what is asked for, and copy a file of text to where the runs are, before they begin.

    Raises:
        BadInput: they have begun with something else, or other files are where the copy would be.
    """
    if data.is_file():
        asked |= {"text": data.name, "sha256": sha256_of(data)}
    note, text = out / NOTE, json.dumps(asked, indent=1) + "\n"
    if any((out / name).exists() for name in (JOINED, ALONE)):
        if not note.is_file() or note.read_text("utf-8") != text:
            raise BadInput(f"{out} was begun with other text or settings; give another --out")
        return
    if data.is_file():
        folder = out / "data"
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(note.read_text("utf-8")).get("text") if note.is_file() else None
        names = {path.name for path in folder.iterdir()} - {data.name}
        if others := names - {before}:
            raise BadInput(f"{folder} holds {min(others)} already; give another --out")
        for name in names:  # of a call that was refused
            (folder / name).unlink()
        if data.resolve() != (folder / data.name).resolve():
            shutil.copyfile(data, folder / data.name)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(note, text)


def _done(
    folder: Path, tree: dict[str, Any], overrides: Sequence[str], following: "Following"
) -> RunResult:
    """The run of `tree` in `folder`, finished: now, earlier, or from where it was stopped."""
    if rows := final_rows(folder):
        return RunResult(folder, rows)
    with following(folder.name) as trackers:
        if (folder / "config.yaml").exists():
            return resume(folder, trackers=trackers)
        return run(tree, overrides, out=folder, trackers=trackers)


def _generalist(result: RunResult) -> float:
    """Test perplexity of the generalists that the run `result` began with."""
    from comigs.app.start import tensors_of
    from comigs.evaluation.perplexity import evaluate
    from comigs.federation.clients import data_of
    from comigs.federation.run import resolve
    from comigs.mixture.adapters import load_adapter_tensors
    from comigs.mixture.experts import shared_expert, using_expert
    from comigs.use.final import final_model

    client = resolve(result.config).client(0)
    model = final_model(client, result.folder)
    load_adapter_tensors(model, tensors_of(client.run))
    [test] = data_of(client).tests.values()
    shared = shared_expert(model)
    assert shared, "it has a specialist, too"
    with using_expert(model, shared):
        return evaluate(model, test, client.config)
