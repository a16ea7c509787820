"""What each client gets of the tensors that the server keeps."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from comigs.federation.run import Run
from comigs.mixture.ranks import lora_scale
from comigs_server.fleet.exchange import Client
from comigs_server.resume import Progress


def sharer(run: Run, progress: Progress) -> Callable[[Client], dict[str, Tensor]]:
    """A function that makes one client's share of `progress.shared`."""

    def share_of(client: Client) -> dict[str, Tensor]:
        fresh = progress.client_rounds.get(client.id) == progress.round
        scale = partial(lora_scale, run.config.experts)
        kept = run.aggregator.view(progress.shared, client.id)
        return run.aggregator.deliver(kept, client.shapes, scale, fresh)

    return share_of
