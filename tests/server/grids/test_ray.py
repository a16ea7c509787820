"""RayGrid: clients in worker processes that die, hang and come back. One Ray serves most tests."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from comigs.errors import BadInput, ComigsError
from comigs_server.grids.ray import RayGrid, workforce
from comigs_server.grids.raystart import connect
from tests.server.grids.asking import PAIRS, ask, by_client, failures, pids

pytestmark = pytest.mark.slow

APP = "tests.server.grids.toy:app"


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def grid(state_dir):
    with RayGrid(APP, 4, str(state_dir), workers=2, threads=1, timeout=3.0) as grid:
        yield grid


def test_a_group_is_answered_in_one_worker_and_outlives_it(tmp_path):
    with RayGrid(APP, 4, str(tmp_path), 2, 1, timeout=3.0, together=PAIRS) as pairs:
        for kind in ("query", "query.die"):  # redone as the group it was
            replies = by_client(pairs.send_and_receive(ask(pairs, kind)))
            about = {n: reply.content.config_records["about"] for n, reply in replies.items()}
            assert {n: each["group"] for n, each in about.items()} == {
                0: [0, 2], 1: [1, 3], 2: [0, 2], 3: [1, 3]
            }  # fmt: skip
            assert about[1]["pid"] == about[3]["pid"]
        replies = by_client(pairs.send_and_receive(ask(pairs, "query.crash")))
    assert (tmp_path / "crashes").read_text() == "xxx"  # twice together, then alone
    assert failures(replies.values()) == {1}
    assert replies[3].content.config_records["about"]["partition-id"] == 3


def test_clients_run_in_worker_processes(grid, state_dir):
    replies = grid.send_and_receive(ask(grid))
    assert not failures(replies)
    for client, reply in by_client(replies).items():
        about = reply.content.config_records["about"]
        assert about["partition-id"] == client
        assert about["num-partitions"] == 4
        assert about["state-dir"] == str(state_dir)
    assert len(pids(replies)) <= 2
    assert os.getpid() not in pids(replies)


def test_workers_use_the_threads_given(grid):
    for reply in grid.send_and_receive(ask(grid, "query.threads")):
        assert dict(reply.content.metric_records["threads"]) == {"torch": 1, "omp": 1}


def test_flowers_fedavg_runs_unchanged(grid):
    result = FedAvg().start(
        grid,
        ArrayRecord([np.zeros((2, 3))]),
        num_rounds=2,
        train_config=ConfigRecord({"lr": 0.1}),
    )
    [arrays] = result.arrays.to_numpy_ndarrays()
    np.testing.assert_allclose(arrays, np.full((2, 3), 3.0))


def test_a_client_that_raises_gives_an_error_reply(grid):
    messages = ask(grid, "query.fail")
    replies = by_client(grid.send_and_receive(messages))
    assert failures(replies.values()) == {1}
    assert replies[1].error.reason == "RuntimeError: no text for this client"
    assert replies[1].metadata.reply_to_message_id == messages[1].metadata.message_id


def test_a_client_is_redone_when_its_worker_is_killed(grid, state_dir):
    messages = ask(grid, "query.die")
    replies = by_client(grid.send_and_receive(messages))
    assert (state_dir / "died").exists()
    assert sorted(replies) == [0, 1, 2, 3]
    assert not failures(replies.values())
    assert replies[1].metadata.reply_to_message_id == messages[1].metadata.message_id


def test_a_client_that_kills_every_worker_gets_an_error_reply(grid, state_dir):
    messages = ask(grid, "query.crash")
    replies = by_client(grid.send_and_receive(messages))
    assert sorted(replies) == [0, 1, 2, 3]
    assert failures(replies.values()) == {1}
    assert replies[1].error.reason == "its worker process died"
    assert replies[1].metadata.reply_to_message_id == messages[1].metadata.message_id
    assert (state_dir / "crashes").read_text() == "xx"
    assert not failures(grid.send_and_receive(ask(grid)))


def test_a_hanging_client_is_given_up(grid):
    messages = ask(grid, "query.hang")
    replies = by_client(grid.send_and_receive(messages))
    assert sorted(replies) == [0, 1, 2, 3]
    assert failures(replies.values()) == {2}
    assert replies[2].error.reason == "did not answer within 3 s (server.round_timeout)"
    assert replies[2].metadata.reply_to_message_id == messages[2].metadata.message_id
    assert not failures(grid.send_and_receive(ask(grid)))


def test_a_worker_that_died_idle_costs_no_client_anything(grid):
    for pid in pids(grid.send_and_receive(ask(grid))):
        os.kill(pid, signal.SIGKILL)
    replies = grid.send_and_receive(ask(grid))
    assert len(replies) == 4
    assert not failures(replies)


def test_what_is_given_up_frees_its_worker(grid):
    assert grid.send_and_receive(ask(grid, "query.hang", [3, 3]), timeout=0.2) == []
    replies = grid.send_and_receive(ask(grid))
    assert len(replies) == 4
    assert not failures(replies)


def test_the_slowest_clients_start_first(grid, state_dir):
    seconds = {"0": 0.0, "1": 0.0, "2": 0.4, "3": 0.8}
    content = RecordDict({"seconds": ConfigRecord(seconds)})
    log = state_dir / "log"
    for expected in ({"start 0", "start 1"}, {"start 2", "start 3"}):
        log.write_text("")
        assert not failures(grid.send_and_receive(ask(grid, "query.sleep", content=content)))
        starts = [line for line in log.read_text().splitlines() if line.startswith("start")]
        assert set(starts[:2]) == expected


def test_a_client_works_on_one_message_at_a_time(grid, state_dir):
    content = RecordDict({"seconds": ConfigRecord({"0": 0.1})})
    log = state_dir / "log"
    log.write_text("")
    messages = ask(grid, "query.sleep", [1, 1, 1], content)
    replies = grid.send_and_receive(messages)
    assert log.read_text().splitlines() == ["start 0", "end 0"] * 3
    assert [reply.metadata.reply_to_message_id for reply in replies] == [
        message.metadata.message_id for message in messages
    ]


def test_an_address_without_ray_is_a_clear_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        no_ray_yet = SimpleNamespace(is_initialized=lambda: False)
        with pytest.raises(ComigsError, match=rf"Ray at ray.address={address} cannot be used"):
            connect(no_ray_yet, address, {"CPU": 1.0}, threads=1)


def test_workers_do_not_wait_for_ever_for_what_others_hold(grid, tmp_path, monkeypatch):
    assert not failures(grid.send_and_receive(ask(grid)))
    monkeypatch.setattr(workforce, "START_SECONDS", 0.5)
    said = r"'default' has started within 0\.5 s; is 1 CPU in use by others"
    with RayGrid(APP, 4, str(tmp_path), 1, 1) as second, pytest.raises(ComigsError, match=said):
        second.send_and_receive(ask(second))
    assert not failures(grid.send_and_receive(ask(grid)))


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"engine\.workers=0"):
        RayGrid(APP, 4, str(tmp_path), workers=0, threads=1)


def test_ray_prints_nothing_and_is_left_as_it_was_found(tmp_path):
    """Own Ray with a worker that dies, then the user's Ray with an app that cannot be loaded."""
    script = """
        import os, signal, sys
        import ray
        from flwr.app import Message, RecordDict
        from comigs.errors import ComigsError
        from comigs_server.grids import raystart
        from comigs_server.grids.ray import RayGrid, workforce

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        before = dict(os.environ), signal.getsignal(signal.SIGTERM)
        with RayGrid("tests.server.grids.toy:app", 2, sys.argv[1], workers=2, threads=1) as grid:
            messages = [Message(RecordDict(), node, "query.crash") for node in (1, 2)]
            replies = grid.send_and_receive(messages)
            assert [r.metadata.src_node_id for r in replies if r.has_error()] == [2]
        assert not ray.is_initialized()
        assert before == (dict(os.environ), signal.getsignal(signal.SIGTERM))

        raystart.start_local_ray(ray, {"CPU": 1}, {"PYTHONPATH": os.getcwd()})
        with RayGrid("tests.server.grids.toy:nowhere", 2, sys.argv[1], 1, 1) as grid:
            try:
                grid.send_and_receive([Message(RecordDict(), 1, "query")])
            except ComigsError as error:
                print(error)
        assert ray.is_initialized()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        check=False,
    )
    assert done.stdout + done.stderr == (
        "a worker process cannot load tests.server.grids.toy:nowhere: AttributeError: "
        "module 'tests.server.grids.toy' has no attribute 'nowhere'\n"
    )
    assert done.returncode == 0
