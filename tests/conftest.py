"""Shared by all tests: small models are fastest on one thread, and nothing is fetched."""

import gc
import logging
import os
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    FLWR_TELEMETRY_ENABLED="0",
    RAY_USAGE_STATS_ENABLED="0",
    TORCHINDUCTOR_COMPILE_THREADS="1",  # no processes of its own for two small models
    OMP_WAIT_POLICY="PASSIVE",  # as the command has it: a run on two threads must not burn cores
)

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
os.fsync = lambda handle: None  # no test pulls the plug, and a run waits for the disk 76 times
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # no limit of time: machines are busy
# Some minutes each:
LONGEST = ("test_loopback.py", "test_pages.py", "test_readme.py", "test_engines.py")
RUNS = {"tree", "yaml_file"}  # fixtures of those who start a run


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Nobody looks for garbage among a million objects that imports make: they are all of use."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest files first, and whoever starts a run of its own is slow.

    Of several processes none is left alone with the longest at the end. Who looks at the finished
    run alone is not slow.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path not in slow))
    for item in items:
        if RUNS & set(item.fixturenames) and "finished" not in item.fixturenames:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def plain_reports(request, monkeypatch):
    """Reports without pictures: drawing them takes longer than the small runs of most tests."""
    command = request.node.name.partition("[")[2].partition(" ")[0]  # of README or docs
    if "report" not in {command, *request.path.parts}:
        monkeypatch.setattr("comigs.report.page.pictures_of", lambda run: [])
        monkeypatch.setattr("comigs.report.page.draw_dumbbell", lambda *_: None)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind():
    """A file of tests leaves the process as it was: the next one may be any other."""
    before = of_the_process()
    yield
    torch.set_num_threads(1)  # the command takes as many as it finds cores
    assert of_the_process() == before


def of_the_process():
    log = logging.getLogger("comigs")
    told = (log.level, log.disabled, log.propagate, len(log.filters))
    return told, Path.cwd(), torch.is_grad_enabled()
