"""What a client has to do with each peer whose tensors arrive: influence, and a learnt weight.

Told as peers/influence/<number of the peer>: what the client's validation loss would do on the way
to the peer's tensors, to first order. Of client i and peer j it is <grad L_i(x_i), x_j - x_i>, in
nats per token: x are the tensors that they share, as last trained, and L_i the loss on a batch of
validation text that is drawn from (seed, client, round). Below 0 the peer's update helps. It is
TracIN's product (`comigs.influence`) between clients; where devices see no peer's tensors, nobody
has both of its factors. `cobo` tells peers/graph/<number> besides, the weight that it has learnt.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.data.tokens import random_windows
from comigs.evaluation.gradient import gradients_of
from comigs.evaluation.metrics import OfPeers
from comigs.mixture.adapters import adapter_parameters
from comigs.seeds import generator

Tensors = Mapping[str, Tensor]


def influence(
    model: nn.Module,
    valid: Tensor,
    config: ClientConfig,
    peers: Mapping[int, Tensors],
    client: int,
    number: int,
) -> dict[str, float]:
    """The influence of each peer, by its number as text.

    Args:
        model: the client's own, before anything that arrived is in it.
        valid: its validation text.
        peers: by number, the tensors that they share; the client's own are left out.
        client, number: who it is, and the round.
    """
    rng = generator(config.seed, client, number, "influence batch")
    windows = random_windows(valid, config.batch_size, config.data.seq_len, rng)
    wanted = {name for tensors in peers.values() for name in tensors}
    with gradients_of(model, config, wanted.__contains__) as gradient:
        slope = gradient(windows)
    own = {n: p.detach().cpu().double() for n, p in adapter_parameters(model).items()}
    return {
        str(peer): sum(float((slope[n] * (t - own[n])).sum()) for n, t in sorted(tensors.items()))
        for peer, tensors in sorted(peers.items())
        if peer != client
    }


METRIC = OfPeers()
