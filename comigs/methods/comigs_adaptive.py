"""CoMiGS with roles learnt on the target: how much of the average a client takes is its own choice.

CoMiGS fixes by hand which expert is a generalist (shared), which a specialist (local), and lets
validation text, which stands for the target, decide over the router alone. Here the role is one
more variable of the upper level (arXiv 2409.13931, section 3): everything travels, the server
takes the mean, and client i begins a round from

    theta_i(a) = (1 - a) own_i + a mean,    a_i = argmin_a L_valid(theta_i(a)),    a in {0, 1/2, 1}

a = 1 for ever is `fedavg-moe`, a = 0 for ever is training alone (`local-moe`); the lower level, all
experts and the router on training text, is theirs. A role is changed only on evidence: losses on
the same validation windows are compared pair by pair, and what earlier rounds saw counts on, so
that a few windows suffice and noise does not throw a client back and forth. The last role, after
which nothing is trained, is the best on the whole validation text.

A client that takes none for two rounds rests: its update stays at home, and so out of the mean, and
it fetches the mean only now and then. The server learns from this in which rounds sharing does not
help a client; where privacy is promised, nobody rests. Clients of unequal numbers of experts share
the experts, and the router's rows of them, that both have.

Mixing own and shared weights by a learnt number is APFL's idea (arXiv 2003.13461), learning it
before a round FedALA's (2212.01197), both on training text; trusting validation loss instead of it
is PCL's (2404.09753), which needs every peer's model where this needs one mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from comigs.config.settings import RunConfig
from comigs.methods.base import Method, Travels, all_generalists, everything

if TYPE_CHECKING:
    from torch import Tensor

    from comigs.methods.arrival import Arrival

ROLES = (0.0, 0.5, 1.0)
FORGET = 0.5  # what a round's evidence counts in the next one
SURE = 2.0  # standard errors by which another role must be better
ALONE = 2  # rounds without the mean after which a client rests
PROBE = 4  # rounds from one look at the mean to the next, while it rests
SHARE = 0.2  # windows per role and arrival, of the sequences that a round trains on


def weigh(
    losses: Mapping[float, Tensor], role: float, before: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """Return the role to take, and the evidence to remember.

    Args:
        losses: of each role, the loss of each of n windows.
        role: as it is.
        before: the evidence of earlier rounds; empty at first.
    """
    mean, variance = {}, {}
    for other, values in losses.items():
        gaps = values - losses[role]
        mean[other] = FORGET * before.get(f"loss {other}", 0.0) + float(gaps.mean())
        error = float(gaps.var()) / len(gaps)
        variance[other] = FORGET**2 * before.get(f"variance {other}", 0.0) + error
    best = min(mean, key=lambda other: mean[other])
    if mean[best] + SURE * math.sqrt(variance[best]) < 0:
        role = best
    evidence = {f"loss {other}": mean[other] - mean[role] for other in losses}
    return role, evidence | {f"variance {other}": variance[other] for other in losses}


def rests(kept: Mapping[str, float], number: int) -> Travels:
    """What travels: nothing of a client that has not used the mean for some rounds.

    Now and then it fetches the mean to see whether that has changed.
    """
    if "alone since" not in kept:
        return Travels(up=True, down=True)
    alone = number - int(kept["alone since"])
    return Travels(up=alone < ALONE, down=alone < ALONE or alone % PROBE == 0)


def windows_of(config: RunConfig) -> int:
    """Windows that each role is tried on, before a round."""
    return max(4, round(SHARE * config.local_steps * config.batch_size))


def looks(config: RunConfig) -> int:
    """Tokens of validation text that go through the model before a round."""
    return len(ROLES) * windows_of(config) * config.data.seq_len


def receive(arrival: Arrival) -> dict[str, float]:
    """Begin the round from the client's own tensors, the mean, or between, as its text says."""
    import torch

    from comigs.data.tokens import places, random_windows
    from comigs.evaluation.perplexity import evaluate, mean_losses, token_loss
    from comigs.mixture.adapters import adapter_tensors, load_adapter_tensors
    from comigs.seeds import generator

    model, config, kept = arrival.model, arrival.config, arrival.kept
    own = adapter_tensors(model)

    def take(role: float) -> None:
        mixed = {n: torch.lerp(own[n], mean, role) for n, mean in arrival.shared.items()}
        load_adapter_tensors(model, mixed)

    def whole(role: float) -> float:
        take(role)
        return evaluate(model, arrival.data.valid, config)

    @torch.no_grad()
    def losses(windows: Tensor) -> Tensor:
        if config.train.loss == "chunked":  # whose promise is never to hold all logits
            each = [token_loss(model, window[None], chunked=True) for window in windows]
            return torch.stack(each).double().cpu()
        return mean_losses(model, windows[:, None]).double().cpu()

    if arrival.round > config.rounds:
        take(min(ROLES, key=whole))
        tokens = len(ROLES) * places(arrival.data.valid)
        return {"peer_evaluations": len(ROLES), "peer_evaluation_tokens": tokens}
    rng = generator(config.seed, arrival.client, arrival.round, "roles")
    length = config.data.seq_len
    windows = random_windows(arrival.data.valid, windows_of(config), length, rng)
    found = {}
    for role in ROLES:
        take(role)
        found[role] = torch.cat([losses(part) for part in windows.split(config.micro_batch)])
    role, evidence = weigh(found, kept.get("role", 1.0), kept)
    kept.update(evidence, role=role)
    if role:
        kept.pop("alone since", None)
    else:
        kept.setdefault("alone since", arrival.round)
    take(role)
    return {"peer_evaluations": len(ROLES), "peer_evaluation_tokens": looks(config)}


METHOD = Method(
    name="comigs-adaptive",
    paper="arXiv 2409.13931",
    summary="all is averaged; how much of it a client takes its validation text decides; who takes "
    "none sends none, which the server sees",
    shares=everything,
    experts=all_generalists,
    router="joint",
    receive=receive,
    rests=rests,
    feedback=False,
    looks=looks,
)
