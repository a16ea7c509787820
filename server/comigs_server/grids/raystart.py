"""Reach Ray, or start it on this machine: silently, and with only what a grid needs."""

import logging
import math
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from comigs.errors import ComigsError, one_line


def connect(
    ray: Any, address: str | None, resources: Mapping[str, float], threads: int
) -> dict[str, Any]:
    """Make `ray` usable, unless it is already. Returns the options of an actor.

    Args:
        address: of a cluster; None starts Ray here, with `resources`.
        threads: of an actor.

    Raises:
        ComigsError: Ray cannot be reached or started.
    """
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        if address is None and not ray.is_initialized():
            path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
            start_local_ray(ray, resources, env | {"PYTHONPATH": path})
            return options
        if address is not None and not ray.is_initialized():
            _knock(address)
            _forget_token(ray)
            with _attributes(ray._private.worker, _NO_OBITUARIES), _kept_sigterm():
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        where = "on this machine" if address is None else f"at ray.address={address}"
        raise ComigsError(
            f"Ray {where} cannot be used: {one_line(error)}; engine.name=inline does without it"
        ) from error
    return options | {"runtime_env": {"env_vars": env}}


def _knock(address: str) -> None:
    """Raise `OSError` at once when nothing listens there; Ray alone would try for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def start_local_ray(ray: Any, resources: Mapping[str, float], env: dict[str, str]) -> None:
    """Start Ray with as many logical CPUs and custom resources, reachable from this machine only.

    Its workers inherit the environment of this process, and `env`: faster than a `runtime_env`.
    Ray 2.60 has no public switch for what is left out here: the API server (it asks cloud
    metadata addresses who the host is, even with usage statistics off), the monitors of
    autoscaler and logs, the thread that prints a dead worker's obituary, packaging for `uv run`,
    and an access token in the user's home. Without them Ray starts in half the time.
    """
    private = ray._private
    services = ("start_api_server", "start_monitor", "start_log_monitor")
    flags = ("ENABLE_RAY_CLUSTER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV")  # the first: loopback only
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 by default: starved on a busy machine
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with ExitStack() as stack:
        stack.enter_context(_environment(env | switches))
        stack.enter_context(_attributes(private.node.Node, dict.fromkeys(services, _skip)))
        stack.enter_context(_attributes(private.worker, _NO_OBITUARIES))
        stack.enter_context(_attributes(private.ray_constants, dict.fromkeys(flags, False)))
        stack.enter_context(_kept_sigterm())
        _forget_token(ray)
        ray.init(
            address="local",
            num_cpus=math.ceil(resources["CPU"]),
            resources={name: n for name, n in resources.items() if name not in ("CPU", "GPU")},
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={"prestart_worker_first_driver": False},
        )


def _forget_token(ray: Any) -> None:
    """Make Ray read its mode and token of authentication again: it keeps those of an earlier Ray.

    The order is Ray's own: a thread that still ends must not find the mode without a token.
    """
    if loader := getattr(ray._raylet, "AuthenticationTokenLoader", None):
        ray._raylet.Config.initialize("")
        loader.instance().reset_cache()


def _skip(*_: Any, **__: Any) -> None:
    """Do nothing, in the place of a service."""


_NO_OBITUARIES = {"listen_error_messages": _skip}


@contextmanager
def _attributes(owner: Any, values: dict[str, Any]) -> Iterator[None]:
    """Set attributes while the block runs; one that this version of Ray lacks is left out."""
    before = {name: getattr(owner, name) for name in values if hasattr(owner, name)}
    try:
        for name in before:
            setattr(owner, name, values[name])
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = dict(os.environ)
    try:
        os.environ.update(values)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Put the caller's SIGTERM handler back: Ray's prints a stack of addresses."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):  # not in the main thread; not set from Python
            signal.signal(signal.SIGTERM, handler)
