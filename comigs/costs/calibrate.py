"""How fast this machine trains, from a few real steps of the real model.

Two seconds for each kind of client: on some CPUs bfloat16 is 70 times slower than float32.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from comigs.config.model import ModelConfig
from comigs.costs.shapes import skeleton
from comigs.costs.work import token_flops
from comigs.evaluation.perplexity import perplexity
from comigs.federation.clients import model_of
from comigs.federation.run import Client
from comigs.seeds import generator
from comigs.threads import threads
from comigs.training.bilevel import train_locally

SECONDS = 2.0


@dataclass(frozen=True)
class Speed:
    """FLOP/s reached here, in the kinds of work of `comigs.costs.work.TokenFlops`."""

    expert: float
    router: float
    forward: float


Kind = tuple[ModelConfig, int]  # the base, sequences per forward pass


def kind_of(client: Client) -> Kind:
    """What decides how fast a client's FLOPs are done on one machine."""
    return client.config.model, client.config.micro_batch


def calibrate(client: Client) -> Speed:
    """Measure steps of `client` on random tokens with the run's threads, uncompiled."""
    flops, own = token_flops(client), client.config
    own = replace(own, train=replace(own.train, compile=False))
    with threads(own.threads or torch.get_num_threads()):
        model = model_of(client)
        batch = own.batch_size * own.data.seq_len
        vocabulary = skeleton(own.model.name, own.experts.native).vocabulary
        stream = torch.randint(vocabulary, (batch + 1,), generator=generator("calibration"))

        def train(every: int) -> None:
            router = replace(own.router, every=every, steps=1)
            tried = replace(client, config=replace(own, router=router))
            train_locally(tried, model, stream, stream, {}, round_number=1, steps=1, steps_done=0)

        forward = _seconds(lambda: perplexity(model, stream, own.data.seq_len))
        if not client.method.trains:
            return Speed(0.0, 0.0, flops.forward * batch / forward)
        expert = _seconds(lambda: train(every=2))
        both = _seconds(lambda: train(every=1)) if flops.router else 0.0
        router = max(both - expert, forward)  # it is at least a forward pass
    return Speed(
        flops.expert * batch / expert,
        flops.router * batch / router,
        flops.forward * batch / forward,
    )


def _seconds(work: Callable[[], object]) -> float:
    """The median of as many repetitions as fit into a third of the time, after a first one."""
    work()
    times: list[float] = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < SECONDS / 3:
        mark = time.perf_counter()
        work()
        times.append(time.perf_counter() - mark)
    return sorted(times)[len(times) // 2]
