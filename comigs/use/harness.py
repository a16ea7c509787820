"""Tasks of lm-evaluation-harness on one client's mixture, beside what it was made of."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from comigs.backbone.base import load_base, load_tokenizer
from comigs.data.encoding import opening
from comigs.errors import BadInput, one_line
from comigs.federation.run import Client
from comigs.hardware import resolve_device, use_device
from comigs.mixture.experts import expert_blocks, using_expert
from comigs.use.generate import open_client
from comigs.use.questions import task_of

SHARED = "generalist_0"


@dataclass(frozen=True)
class Score:
    """One measure of one task; `stderr` is None where the harness has none.

    Attributes:
        model: mixture, generalist (the first, alone) or base.
    """

    model: str
    task: str
    metric: str
    value: float
    stderr: float | None


def evaluate_tasks(
    folder: Path,
    client: int,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> list[Score]:
    """Score a client's mixture, its first generalist alone, and the bare base.

    Args:
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
    wanted, manager = _tasks(tasks)
    use_device(resolve_device(device))
    own, mixture = open_client(folder, client)
    tokenizer = load_tokenizer(own.config.model.name)
    found: list[Score] = []
    for name, model, how in _models(own, mixture):
        lm = HFLM(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            batch_size=batch_size,
            add_bos_token=opening(tokenizer) is not None,
        )
        with how, _offline_errors(tasks):
            loaded = manager.load(wanted)
            for task in loaded["tasks"].values():
                if task.get_config("num_fewshot") is None:
                    task.set_config(key="num_fewshot", value=0)
            results = harness.evaluate(
                lm, loaded, limit=limit, log_samples=False, bootstrap_iters=1000, verbosity="ERROR"
            )
        found += _scores(name, results["results"])
    return found


def _tasks(names: Sequence[str]) -> tuple[list[Any], Any]:
    """What `simple_evaluate` takes as tasks, and the manager that knows them."""
    from lm_eval.tasks import TaskManager

    wanted: list[Any] = []
    folders: list[Path] = []
    unknown: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if path.suffix == ".jsonl":
            wanted.append(task_of(path))
        elif path.is_dir():
            wanted += [task_of(file) for file in sorted(path.glob("*.jsonl"))]
            folders.append(path)
        else:
            unknown.append(name)
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


def _models(own: Client, mixture: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    yield "mixture", mixture, nullcontext()
    blocks = expert_blocks(mixture)
    if blocks and len(blocks[0].names) > 1 and SHARED in blocks[0].names:
        yield "generalist", mixture, using_expert(mixture, SHARED)
    yield "base", load_base(own.config.model.name, own.dtype, own.compute), nullcontext()


def _scores(model: str, results: dict[str, dict[str, Any]]) -> Iterator[Score]:
    for task, measured in results.items():
        for key, value in measured.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = measured.get(f"{metric}_stderr,{kind}")
            stderr = float(error) if isinstance(error, int | float) else None
            yield Score(model, task, metric, float(value), stderr)


@contextlib.contextmanager
def _offline_errors(tasks: Sequence[str]) -> Iterator[None]:
    """What the harness raises, in one line: mostly a data set that cannot be had."""
    try:
        yield
    except (OSError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        hint = "; HF_HUB_OFFLINE is set, so that nothing is fetched" if offline else ""
        raise BadInput(f"--tasks {', '.join(tasks)}: {one_line(error)}{hint}") from error
