"""What one client's training needs in memory, known before anything is loaded or launched."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from comigs.config.experts import ExpertsConfig, Routes
from comigs.config.model import ModelConfig
from comigs.config.train import TrainConfig
from comigs.costs.shadow import LiveBytes, depth, shadow_model
from comigs.costs.shapes import skeleton
from comigs.data.windows import Batch
from comigs.evaluation.perplexity import batch_loss, evaluation_batch
from comigs.federation.layers import layer_of
from comigs.federation.run import Client
from comigs.methods.base import Method
from comigs.mixture.adapters import adapter_parameters, is_router, training_experts
from comigs.mixture.experts import balance_loss
from comigs.mixture.forward import forward_of
from comigs.training.optimizers import find_optimizer

_DEPTH = 3  # layers of the deepest model that is traced, or two periods of them


@dataclass(frozen=True)
class Memory:
    """Bytes that one client's training holds at its peak.

    Attributes:
        base: the frozen model, shared by all clients of a process.
        adapters: experts, attention LoRA and routers; of every model that the client trains.
        gradients: of all that is trained.
        moments: of the optimisers.
        activations: all else that is alive at the peak of an expert step or an evaluation.
        resting: moments of experts that a round does not train (`train.layers`), kept besides.
    """

    base: int
    adapters: int
    gradients: int
    moments: int
    activations: int
    resting: int = 0

    @property
    def total(self) -> int:
        trained = self.adapters + self.gradients + self.moments
        return self.base + trained + self.activations + self.resting


def peak_memory(client: Client) -> Memory:
    """Predict the peak of live tensor bytes while `client` trains on the CPU.

    No weights are loaded: an expert step runs on tensors without storage (`comigs.costs.shadow`).

    Raises:
        BadInput: when the model's config cannot be found or its family is unknown.
    """
    return _predict(_step_of(client))


class _Step(NamedTuple):
    """All that decides what an expert step holds."""

    model: ModelConfig
    experts: ExpertsConfig
    method: Method
    routes: Routes
    routers: bool  # whether routers learn
    optimizer: str
    checkpointing: bool
    chunked: bool
    accumulates: bool  # whether a batch is more than one micro-batch
    sequences: int  # of a micro-batch
    evaluated: int  # sequences at once in an evaluation
    seq_len: int
    trained: int | None  # layers whose experts train, if not all


def _step_of(client: Client) -> _Step:
    config = client.config
    return _Step(
        model=config.model,
        experts=client.experts,
        method=client.method,
        routes=config.router.routes,
        routers=config.router.trainable,
        optimizer=config.train.optimizer,
        checkpointing=config.train.checkpointing,
        chunked=config.train.loss == "chunked",
        accumulates=config.micro_batch < config.batch_size,
        sequences=config.micro_batch,
        evaluated=evaluation_batch(config),
        seq_len=config.data.seq_len,
        trained=config.train.layers,
    )


@lru_cache(maxsize=256)
def _predict(step: _Step) -> Memory:
    """Shapes of layers come again: two shallow models give the line to any depth.

    Where they do not, or the whole model is as shallow, it alone is traced. With `train.layers` a
    third one tells what a layer more costs that trains; the first layer, from which all above
    must be held, is always taken to be one of them.
    """
    layers, period = depth(step.model), skeleton(step.model.name, step.experts.native).period
    more, some = min(layers, max(_DEPTH, 2 * period)), step.trained is not None
    trained = min(step.trained or layers, layers)
    line = _trace(step, more, trained if more == layers else period if some else more)
    if more < layers:
        few = _trace(step, more - period, period if some else more)
        steps = (layers - more) / period
        whole = tuple(m + (m - n) * steps for n, m in zip(few, line, strict=True))
        if some:
            wide, steps = _trace(step, more, 2 * period), trained / period - 1
            whole = tuple(x + (w - m) * steps for x, w, m in zip(whole, wide, line, strict=True))
        line = tuple(map(round, whole))
    base, adapters, gradients, moments, resting, training, evaluation = line
    return Memory(base, adapters, gradients, moments, max(0, training, evaluation), resting)


def _trace(step: _Step, layers: int, trained: int) -> tuple[int, ...]:
    """The fields of `Memory` at this depth, with the activations of a step and of an evaluation.

    An evaluation of no more sequences than a micro-batch needs less than a step, and counts as 0.

    Args:
        trained: layers whose experts train, from the first on.
    """
    mode = FakeTensorMode()
    model = shadow_model(step.model, step.experts, step.routes, layers, mode)
    named = adapter_parameters(model)
    every = {n: p for n, p in named.items() if not is_router(n) and step.method.learns(n)}
    experts = {n: p for n, p in every.items() if layer_of(n) < trained}
    routers = {n: p for n, p in named.items() if is_router(n) and step.routers}
    joint = routers.items() if step.method.router == "joint" else ()
    mine = experts | {n: p for n, p in joint if layer_of(n) < trained}
    held = [*model.parameters(), *model.buffers()]
    with mode:
        windows = torch.zeros(step.sequences, step.seq_len + 1, dtype=torch.long)
        if step.accumulates:  # the peak is in a later micro-batch, when gradients are there
            for parameter in mine.values():
                parameter.grad = torch.empty_like(parameter)
        gradients = [p.grad for p in mine.values() if p.grad is not None]
        live = LiveBytes([*held, *gradients, windows], step.experts.total)
        options = TrainConfig(checkpointing=step.checkpointing)
        with live, forward_of(model, options), training_experts(model, mine.__contains__):
            loss = batch_loss(model, _plain(windows), "mean", step.chunked)
            (loss + balance_loss(model)).backward()
        evaluation = LiveBytes([*held, *gradients], step.experts.total)
        if step.evaluated > step.sequences:
            with evaluation, torch.no_grad():
                more = torch.zeros(step.evaluated, step.seq_len + 1, dtype=torch.long)
                batch_loss(model, _plain(more), "sum", step.chunked)
    made = 0 if step.accumulates else _bytes(mine.values())
    learnt, kept = experts | routers, find_optimizer(step.optimizer).state_bytes
    times, models = _models(step.method)
    return (
        _bytes(held) - _bytes(named.values()),
        _bytes(named.values()) * models,
        _bytes(learnt.values()),
        sum(kept(name, parameter.shape) for name, parameter in learnt.items()) * times,
        sum(kept(n, p.shape) for n, p in every.items() if n not in experts) * times,
        live.peak - made,
        evaluation.peak,
    )


def _models(method: Method) -> tuple[int, int]:
    """How many models' tensors are trained, and how many are held: w, v, and their mixture."""
    if method.twin is None:
        return 1, 1
    return 2, 3 if method.twin.mix else 2


def _plain(windows: Tensor) -> Batch:
    """Windows without values: of text."""
    return Batch(windows[:, :-1], windows[:, 1:], None)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
