"""Tasks of lm-evaluation-harness on clients' mixtures, beside what they were made of."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.base import load_base, load_tokenizer
from comigs.data.corpus import holds_chats
from comigs.data.encoding import opening
from comigs.data.template import prompt_for
from comigs.errors import BadInput, one_line
from comigs.federation.run import Client
from comigs.hardware import resolve_device, use_device
from comigs.mixture.experts import shared_expert, using_expert
from comigs.use.generate import open_clients
from comigs.use.questions import Ask, as_it_is, task_of


@dataclass(frozen=True)
class Score:
    """One measure of one task; `stderr` is None where the harness has none.

    Attributes:
        client: the name of the client that is asked, or whose base it is.
        model: mixture, generalist (the first, alone) or base.
    """

    client: str
    model: str
    task: str
    metric: str
    value: float
    stderr: float | None


def evaluate_tasks(
    folder: Path,
    clients: Sequence[int | str] | None,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> list[Score]:
    """Score each client's mixture, its first generalist alone, and the bare base.

    Args:
        clients: their numbers or names; None for all.
        tasks: each a file of questions, a folder of them and of the harness's YAML files, or the
            name of a task that the harness knows.
        limit: questions of each task; None for all.

    Raises:
        BadInput: a task cannot be had, or the harness is not installed.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        from lm_eval import evaluator as harness
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise BadInput(
            f"--tasks needs lm-evaluation-harness ({error}): pip install 'comigs[eval]'"
        ) from None
    use_device(resolve_device(device))
    found: list[Score] = []
    bases: dict[tuple[object, ...], list[Score]] = {}  # what bases answer, by what they are asked
    for own, mixture in open_clients(folder, clients):
        tokenizer = load_tokenizer(own.config.model.name)
        wanted, manager = _tasks(tasks, _ask(own, tokenizer))
        client = own.run.names[own.number]
        for name, model, how in _models(own, mixture):
            same = (own.dtype, own.compute, _in_chats(own))
            if name == "base" and same in bases:
                found += [replace(score, client=client) for score in bases[same]]
                continue
            lm = HFLM(
                pretrained=model,
                backend="causal",
                tokenizer=tokenizer,
                batch_size=batch_size,
                add_bos_token=opening(tokenizer) is not None,
            )
            if not sys.stderr.isatty():
                _silence(lm)
            with how, _offline_errors(tasks):
                loaded = manager.load(wanted)
                for task in loaded["tasks"].values():
                    if task.get_config("num_fewshot") is None:
                        task.set_config(key="num_fewshot", value=0)
                results = harness.evaluate(
                    lm, loaded, limit=limit, log_samples=False, bootstrap_iters=1000,
                    verbosity="ERROR",
                )  # fmt: skip
            scores = list(_scores(client, name, results["results"]))
            found += scores
            if name == "base":
                bases[same] = scores
    return found


def _silence(lm: Any) -> None:
    """No bars of progress."""
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, kind, partial(getattr(lm, kind), disable_tqdm=True))


def _tasks(names: Sequence[str], ask: Ask) -> tuple[list[Any], Any]:
    """What the harness takes as tasks, and the manager that knows them."""
    from lm_eval.tasks import TaskManager

    files: list[Path] = []
    folders: list[Path] = []
    unknown: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if path.suffix == ".jsonl":
            files.append(path)
        elif path.is_dir():
            files += sorted(path.glob("*.jsonl"))
            folders.append(path)
        elif path.suffix in (".yaml", ".yml"):
            raise BadInput(f"--tasks {name}: give the folder it is in, for tasks in YAML")
        else:
            unknown.append(name)
    stems = [file.stem for file in files]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise BadInput(f"two of --tasks are files of questions called {twice}; rename one")
    wanted: list[Any] = [task_of(file, ask) for file in files]
    own = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False)
    wanted += own.all_tasks
    if not unknown:
        if not wanted:
            raise BadInput(
                f"--tasks {', '.join(names)}: there are no .jsonl or .yaml files of tasks"
            )
        return wanted, own
    manager = TaskManager(include_path=[str(folder) for folder in folders])
    for name in unknown:
        if name not in manager.all_tasks:
            raise BadInput(
                f"--tasks {name!r} is no file, no folder, and no task of lm-evaluation-harness; "
                "lm-eval ls tasks lists those"
            )
    return [*wanted, *unknown], manager


def _ask(own: Client, tokenizer: PreTrainedTokenizerBase) -> Ask:
    """A client that was trained on chats is asked in one, others with the bare question."""
    return partial(prompt_for, tokenizer) if _in_chats(own) else as_it_is


def _in_chats(own: Client) -> bool:
    return holds_chats(own.config.data.name, own.run.names[own.number], "train")


def _models(own: Client, mixture: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    yield "mixture", mixture, nullcontext()
    if shared := shared_expert(mixture):
        yield "generalist", mixture, using_expert(mixture, shared)
    yield "base", load_base(own.config.model.name, own.dtype, own.compute), nullcontext()


def _scores(client: str, model: str, results: dict[str, dict[str, Any]]) -> Iterator[Score]:
    for task, measured in results.items():
        for key, value in measured.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = measured.get(f"{metric}_stderr,{kind}")
            stderr = float(error) if isinstance(error, int | float) else None
            yield Score(client, model, task, metric, float(value), stderr)


@contextlib.contextmanager
def _offline_errors(tasks: Sequence[str]) -> Iterator[None]:
    """What the harness raises, in one line: mostly a data set that cannot be had."""
    try:
        yield
    except (OSError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        set_so = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        offline = set_so and isinstance(error, OSError)
        hint = "; HF_HUB_OFFLINE is set, so that nothing is fetched" if offline else ""
        raise BadInput(f"--tasks {', '.join(tasks)}: {one_line(error)}{hint}") from error
