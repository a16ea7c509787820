"""Client-level differential privacy of the shared tensors: DP-FedAvg (arXiv 1710.06963).

Each update is cut to an L2 norm of at most `privacy.clip`; their plain mean over n clients gets
Gaussian noise of std `privacy.noise` * clip / n on each element (epsilon: `accountant`).

It covers what clients send in arrays, and with that all that other clients get to see. It does not
cover the numbers that a client tells the server (loss, validation perplexity, seconds), nor what a
server that breaks its word does with single updates.

Noise and the draw of clients come from (the server's secret, round), so that a resumed run is the
same (`comigs_server.secret`): the seed is in every client's configuration, and whoever knows where
noise comes from can take it off. So can who tries all that it may come from: torch's generator on
the CPU makes 32 bits of any seed, hence ChaCha20 here.

Record-level privacy (DP-SGD) is left out. It needs the gradient of each sequence by itself; Opacus
gets those from hooks on whole layers, while an expert block here computes all experts' LoRA in one
fused product over a shared frozen MLP, and routers are learnt in a second loop on other text, whose
gradients would need their own clipping and their own share of the budget.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from comigs.aggregation.mean import weighted_mean
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.masking import mask, shaped
from comigs.messages.update import clipped, minus, plus


def private_mean(
    run: Run, number: int, sent: Mapping[int, Mapping[str, Tensor]],
    kept: Mapping[str, Tensor], secret: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean of the clipped updates, with noise, on top of what the round started from.

    Args:
        number: the round.
        sent: by client, its tensors; of the same names and shapes for all.
        kept: what the server sent to all; empty where they began from the common start.
        secret: of the server; where the noise comes from.
    """
    privacy, shapes = run.config.privacy, {n: tuple(t.shape) for n, t in sent[min(sent)].items()}
    start = reference(run, 0, number, kept, shapes)
    updates = {i: clipped(minus(t, start), privacy.clip) for i, t in sent.items()}
    std = privacy.noise * privacy.clip / len(updates)
    size = sum(map(math.prod, shapes.values()))
    noisy = {}
    for name, noise in shaped(gaussian(_key(secret, number, updates), size), shapes).items():
        mean = weighted_mean({i: u[name].double() for i, u in updates.items()}, _equal(updates))
        noisy[name] = (mean + std * noise).float()
    return plus(noisy, start)


def gaussian(key: bytes, size: int) -> Tensor:
    """`size` standard normal numbers, fp64: Box and Muller's of ChaCha20's key stream.

    Args:
        key: 32 bytes, used once.
    """
    words = mask(key, 4 * math.ceil(size / 2)).view(np.uint64)
    uniform = ((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53  # in (0, 1]
    radius, angle = np.sqrt(-2 * np.log(uniform[::2])), 2 * np.pi * uniform[1::2]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return torch.from_numpy(both[:size])


def _key(secret: str, number: int, updates: Mapping[int, Mapping[str, Tensor]]) -> bytes:
    text = repr((secret, "server", number, "privacy noise", _digest(updates)))
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def _digest(updates: Mapping[int, Mapping[str, Tensor]]) -> str:
    """A name for exactly these updates.

    A round that is repeated with others must not have the same noise: the difference would show
    them bare.
    """
    digest = hashlib.blake2b()
    for client, update in sorted(updates.items()):
        for name, tensor in sorted(update.items()):
            digest.update(f"{client} {name}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _equal(clients: Iterable[int]) -> dict[int, float]:
    return dict.fromkeys(clients, 1.0)
