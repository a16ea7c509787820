"""Ways from the server to the clients: in this process, or over Ray actors."""

from collections.abc import Sequence

from comigs.config.pools import RayConfig
from comigs.errors import BadInput
from comigs_server.grids.embedded import EmbeddedGrid

CLIENT_APP = "comigs_clients.app:app"
TRAIN_FUSED = "comigs_clients.fused:train_fused"


def make_grid(
    engine: str,
    *,
    num_clients: int,
    state_dir: str,
    threads: int,
    workers: int,
    timeout: float | None,
    fuse: int = 1,
    ray: RayConfig | None = None,
    classes: Sequence[str] | None = None,
) -> EmbeddedGrid:
    """The grid of an embedded engine, for a `with` block.

    Args:
        engine: `inline` (this process) or `ray` (`workers` processes).
        num_clients: how many clients there are.
        state_dir: folder under which clients keep their private state.
        threads: torch threads per client.
        workers: processes of the ray engine, in each of its pools; inline has none.
        timeout: seconds that one client may work on one message; None for no limit.
        fuse: clients of equal shape that train in one pass, at most.
        ray: the cluster and the pools of the ray engine.
        classes: device class of each client, for the pools; None when there are none.

    Raises:
        BadInput: the engine is unknown, not installed, or has not the resources asked for.
    """
    from comigs_clients.fused import alike
    from comigs_server.grids.client import Together

    together = Together(fuse, alike, TRAIN_FUSED) if fuse > 1 else None
    if engine == "inline":
        from comigs.threads import use_threads
        from comigs_clients.app import app
        from comigs_server.grids.inline import InlineGrid

        use_threads(threads)
        return InlineGrid(app, num_clients, state_dir, timeout, together)
    if engine == "ray":
        try:
            from comigs_server.grids.ray import RayGrid
        except ModuleNotFoundError as error:
            raise BadInput(f"engine.name=ray: {error}; install ray, or use inline") from error
        return RayGrid(
            CLIENT_APP,
            num_clients,
            state_dir,
            workers,
            threads,
            timeout,
            ray,
            classes,
            together,
        )
    raise BadInput(f"engine.name={engine}: an embedded engine is inline or ray")
