"""A run that begins with what another run's server has: its shared tensors (`start`)."""

from pathlib import Path

from torch import Tensor

from comigs.app.fingerprint import at_home
from comigs.config.load import read_config
from comigs.costs.shapes import adapter_shapes
from comigs.errors import BadInput
from comigs.federation.run import Run, resolve
from comigs.store.state import newest_state, saved_rounds, write_state

SAME = ("rank", "alpha", "scaling")  # of the experts: what a shared tensor means depends on them


def check_start(run: Run) -> None:
    """Refuse a `start` that does not fit, before anything is written.

    Raises:
        BadInput: as `tensors_of`.
    """
    if run.config.start is not None:
        tensors_of(run)


def begin(run: Run, folder: Path) -> None:
    """Save the tensors of `start` as the server's state before round 1, once.

    Raises:
        BadInput: as `tensors_of`.
    """
    from comigs_server.resume import Progress

    root = folder / "server"
    if run.config.start is None or saved_rounds(root):
        return
    shared = {"shared": tensors_of(run)}
    write_state(root, 0, shared, Progress().meta(run.config))


def tensors_of(run: Run) -> dict[str, Tensor]:
    """The shared tensors of `start` that this run's method shares, too.

    Raises:
        BadInput: the folder is no run, has saved no round, is of another base or other experts, or
            holds nothing that this run could take; or one of the two methods does not average.
    """
    source = Path(str(run.config.start))
    other = resolve(read_config(source))
    for method, aggregator in ((other.method, other.aggregator), (run.method, run.aggregator)):
        if not aggregator.averages or not method.trains or method.pooled:
            raise _refusal(run, f"needs servers that average; that of {method.name!r} does not")
    _check_same(run, other)
    newest = newest_state(source / "server")
    if newest is None or newest[0] == 0:
        raise _refusal(
            run,
            "has no saved round of its server: it has not ended one yet, or is what an earlier "
            "comigs compare --keep-models left: run its config.yaml anew",
        )
    tensors = newest[1]
    shapes = adapter_shapes(run.client(0))
    shared = sorted(tensors["shared"].items())
    mine = {n: t for n, t in shared if n in shapes and run.method.shares(n)}
    if not mine:
        raise _refusal(run, f"shares nothing that method {run.method.name!r} shares")
    return mine


def _check_same(run: Run, other: Run) -> None:
    here, there = at_home(run.config), other.config
    pairs: dict[str, tuple[object, object]] = {
        "model.name": (here.model.name, there.model.name),
        "model.attention_lora": (here.model.attention_lora, there.model.attention_lora),
    }
    for key in SAME:
        pairs[f"experts.{key}"] = getattr(here.experts, key), getattr(there.experts, key)
    for key, (mine, its) in pairs.items():
        if mine != its:
            raise _refusal(run, f"has {key} {its!r}; this run has {mine!r}")


def _refusal(run: Run, why: str) -> BadInput:
    return BadInput(f"start is {run.config.start}: it {why}", "start")
