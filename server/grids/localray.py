"""Start Ray on this machine, on the loopback interface, silently, with only what a grid needs."""

import logging
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


def start_local_ray(ray: Any, cpus: int, env: dict[str, str]) -> None:
    """`ray.init` for `cpus` logical CPUs; the workers' environment is this one and `env`.

    Ray 2.60 has no public switch for what is left out here: the API server (it asks cloud
    metadata addresses who the host is, even with usage statistics off), the monitors of
    autoscaler and logs, the thread that prints a dead worker's obituary, packaging for `uv run`,
    and the access token in the user's home. Without them Ray starts in half the time.
    """
    private = ray._private
    services = ("start_api_server", "start_monitor", "start_log_monitor")
    flags = ("ENABLE_RAY_CLUSTER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV")  # the first: loopback only
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with ExitStack() as stack:
        stack.enter_context(_environment(env | switches))
        stack.enter_context(_attributes(private.node.Node, dict.fromkeys(services, _skip)))
        stack.enter_context(_attributes(private.worker, {"listen_error_messages": _skip}))
        stack.enter_context(_attributes(private.ray_constants, dict.fromkeys(flags, False)))
        stack.enter_context(_kept_sigterm())
        if loader := getattr(ray._raylet, "AuthenticationTokenLoader", None):
            loader.instance().reset_cache()
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={"prestart_worker_first_driver": False},
        )


def _skip(*_: Any, **__: Any) -> None:
    """Do nothing, in the place of a service."""


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
