"""Whether a configuration can run: what no single section of it can tell."""

import sys
from typing import cast

import torch
from torch import nn

from comigs.backbone.base import load_base
from comigs.config.experts import ExpertsConfig
from comigs.config.server import ServerConfig
from comigs.config.settings import RunConfig
from comigs.config.strategies import find_strategy
from comigs.costs.shapes import skeleton
from comigs.data.enough import check_texts, tell_left_out, tell_skipped
from comigs.data.roster import roster
from comigs.data.tokens import check_length
from comigs.errors import BadInput
from comigs.evaluation.metrics import OfPeers, find_metric
from comigs.federation.clients import data_of
from comigs.federation.run import Run
from comigs.federation.selection import beginning, wanted
from comigs.methods import own_methods
from comigs.mixture.routers import check_scope
from comigs.training.optimizers import find_optimizer
from comigs.training.schedules import find_schedule
from comigs_server.checks.layers import check_depth, check_layers
from comigs_server.checks.mode import check_arrivals, check_mode, check_tiers
from comigs_server.checks.privacy import check_privacy
from comigs_server.checks.strategy import check_strategy
from comigs_server.fleet.registry import expected_clients
from comigs_server.grids.connection import connection

READ_AT_START = 64  # with more clients than this, only what is short is read


def check(run: Run) -> None:
    """Load model and data once, so that bad input shows before anything is started.

    Raises:
        BadInput: what is wrong.
    """
    config = run.config
    _check_system(config)
    count = len(roster(config))
    for key, value in config.per_client().items():
        if len(value) != count:
            raise BadInput(f"{key} has {len(value)} values; there are {count} clients")
    taking_part = wanted(run, len(run.names))
    if config.server.min_clients > taking_part:
        raise BadInput(
            f"server.min_clients is {config.server.min_clients}; only {taking_part} clients "
            "take part in a round"
        )
    _check_settings(run, count, taking_part)
    beginning(run, range(count), 0.0)
    check_length(config)
    tell_skipped(config)
    for model in dict.fromkeys(client.config.model for client in run.kinds(count)):
        load_base(model.name, cast(str, model.dtype), cast(str, model.compute))
        if config.experts.native:
            skeleton(model.name, True)
    check_depth(run)
    clients = range(len(run.names))
    tell_left_out(config, range(count)[:READ_AT_START])
    if len(clients) <= READ_AT_START or config.data.mixes:
        for client in run.clients():
            data_of(client)
    else:
        data_of(run.client(0))
        check_texts(config, clients)


def check_without_data(run: Run) -> None:
    """Check what needs neither text nor model: those are on the devices.

    Raises:
        BadInput: what is wrong.
    """
    config = run.config
    if config.data.test_clients or run.method.pooled:
        key = "data.test_clients" if config.data.test_clients else "method"
        value = config.data.test_clients or config.method
        raise BadInput(f"{key} is {value!r}; with engine.name flower nobody has all clients' text")
    if config.start is not None:
        raise BadInput(
            f"start is {config.start}; with engine.name flower a run begins with the common start"
        )
    if config.server.mode == "buffered":
        check_arrivals(config)
    if config.devices.traces is not None:
        raise BadInput(
            f"devices.traces is {config.devices.traces!r}, a file of this machine: it needs "
            "engine.name inline or ray"
        )
    if config.server.tiers is not None:
        raise BadInput(
            f"server.tiers is {config.server.tiers}; edges are simulated: they need engine.name "
            "inline or ray"
        )
    if config.data.skip_small:
        raise BadInput(
            "data.skip_small is true; with engine.name flower nobody has all clients' text: give "
            "it to --data of comigs deploy without the short ones"
        )
    connection(config.flower.superlink)
    count = expected_clients(config)
    depends = {
        "privacy.secure": config.privacy.secure != "none",
        "server.strategy": find_strategy(config.server.strategy).least_clients(0) > 0,
        "faults.poisoned": bool(config.faults.poisoned),
    }
    counted = [key for key, does in depends.items() if does]
    if count is None and counted:
        raise BadInput(f"clients is null; {counted[0]} depends on how many there are: set clients")
    taking_part = wanted(run, count) if count else config.server.buffer or 1
    _check_settings(run, count or 1, taking_part)


def _check_settings(run: Run, count: int, taking_part: int) -> None:
    """Whether the settings suit each other, for `count` clients of which some train in a round."""
    config = run.config
    _check_devices(config)
    experts = [client.experts for client in run.kinds(count)]
    _check_training(config, experts)
    _check_metrics(run)
    _check_method(run, experts)
    _check_swa(run, experts)
    check_layers(run)
    check_tiers(run, experts, count)
    if config.server.mode == "buffered":
        taking_part = check_mode(run, experts, taking_part)
    check_strategy(run, experts, taking_part)
    check_privacy(run, experts, count, taking_part)


def _check_system(config: RunConfig) -> None:
    if sys.platform == "win32":
        if config.engine.name == "ray":
            raise BadInput("engine.name is ray, which does not run on Windows; use inline")
        if config.server.round_timeout is not None:
            raise BadInput("server.round_timeout cannot be kept on Windows; set it to null")


def _check_devices(config: RunConfig) -> None:
    if config.devices.profiles:
        return
    default = ServerConfig()
    if config.server.mode == "buffered" and config.engine.name == "flower":
        return
    for key in ("mode", "over_selection", "deadline", "late"):
        if (value := getattr(config.server, key)) != getattr(default, key):
            raise BadInput(f"server.{key} is {value!r}, which needs devices.profiles")


def _check_training(config: RunConfig, experts: list[ExpertsConfig]) -> None:
    check_scope(config.experts.router, config.router.scope)
    find_schedule(config.train.schedule)
    optimizer = find_optimizer(config.train.optimizer)
    optimizer.make([("one", nn.Parameter(torch.ones(1, 1)))], config.train)
    if config.router.grad == "first_order" and optimizer.rates is None:
        raise BadInput(
            f"router.grad is 'first_order'; train.optimizer {config.train.optimizer!r} does not "
            "tell its step sizes; use adamw"
        )
    if reason := optimizer.accepts(experts):
        raise BadInput(f"train.optimizer {config.train.optimizer!r}: {reason}")


def _check_metrics(run: Run) -> None:
    """Metrics that there are, and those of peers only where their tensors arrive."""
    for name in run.config.log.metrics or ():
        if isinstance(find_metric(name), OfPeers) and not run.method.tells:
            able = [other for other, method in own_methods().items() if method.tells]
            raise BadInput(
                f"log.metrics has {name!r}, which needs a method in which peers' tensors arrive: "
                f"{' or '.join(able)}; method is {run.method.name!r}",
                "log.metrics",
            )


def _check_method(run: Run, experts: list[ExpertsConfig]) -> None:
    method = run.method
    if reason := method.accepts(run.config, experts):
        raise BadInput(f"method {method.name!r}: {reason}")
    mixed_ranks = len({e.rank for e in experts}) > 1 and any(e.generalists for e in experts)
    if mixed_ranks and not run.aggregator.mixed_ranks:
        raise BadInput(
            f"experts.rank is {run.config.experts.rank}; method {method.name!r} averages LoRA "
            "matrices, which needs one rank for all clients"
        )


def _check_swa(run: Run, experts: list[ExpertsConfig]) -> None:
    """Means over rounds are of tensors that keep their place, and are copied where they arrive."""
    method, first = run.method, run.config.train.swa
    if first is None:
        return
    changes = method.receive or method.finish or method.twin or method.restarts
    if changes or not run.aggregator.averages:
        raise BadInput(
            f"train.swa is {first}; method {method.name!r} makes something else of what arrives "
            "than a copy: use one that only averages, or set it to null"
        )
    own = any(method.shares(f".lora_{half}.specialist_0.") for half in "AB")
    if len({(e.generalists, e.specialists if own else 0) for e in experts}) > 1:
        raise BadInput(
            f"train.swa is {first}; method {method.name!r} averages experts that not every client "
            "has: give all of them as many"
        )
