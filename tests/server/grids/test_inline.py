"""InlineGrid: what a caller and Flower's own strategies see of it."""

import signal
import threading
import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg

from comigs.errors import BadInput
from comigs_server.grids import inline, make_grid
from comigs_server.grids.client import client_context
from comigs_server.grids.inline import InlineGrid
from tests.server.grids import toy
from tests.server.grids.asking import PAIRS, ask, by_client


@pytest.fixture
def grid(tmp_path):
    with InlineGrid(toy.app, 4, str(tmp_path)) as grid:
        yield grid


def test_each_client_has_its_own_node_config(grid, tmp_path):
    replies = by_client(grid.send_and_receive(ask(grid)))
    assert sorted(replies) == [0, 1, 2, 3]
    for client, reply in replies.items():
        about = reply.content.config_records["about"]
        assert about["partition-id"] == client
        assert about["num-partitions"] == 4
        assert about["state-dir"] == str(tmp_path)
        assert about["node"] == client + 1


def test_one_client_runs_at_each_pull(grid):
    messages = ask(grid)
    ids = grid.push_messages(messages)
    assert ids == [message.metadata.message_id for message in messages]
    assert len(set(ids)) == 4
    answered = [grid.pull_messages(set(ids)) for _ in range(5)]
    assert [len(replies) for replies in answered] == [1, 1, 1, 1, 0]
    assert [replies[0].metadata.reply_to_message_id for replies in answered[:4]] == ids


def test_only_the_messages_asked_for_run(grid):
    ids = grid.push_messages(ask(grid))
    assert grid.pull_messages(["unknown"]) == []
    [reply] = grid.pull_messages(ids[2:3])
    assert reply.metadata.reply_to_message_id == ids[2]
    assert reply.metadata.src_node_id == 3


def test_contexts_are_made_when_used_and_kept(tmp_path, monkeypatch):
    made = []

    def watched(node_id, *others):
        made.append(node_id)
        return client_context(node_id, *others)

    monkeypatch.setattr(inline, "client_context", watched)
    with InlineGrid(toy.app, 1_000_000, str(tmp_path)) as grid:
        for count in (1, 2):
            [reply] = grid.send_and_receive(ask(grid, nodes=[77]))
            assert reply.content.metric_records["seen"]["count"] == count
        assert made == [77]


def test_a_client_that_raises_gives_an_error_reply(grid, caplog):
    caplog.set_level("DEBUG", "comigs_server.grids")
    messages = ask(grid, "query.fail")
    replies = by_client(grid.send_and_receive(messages))
    assert [client for client in replies if replies[client].has_error()] == [1]
    failed = replies[1]
    assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert failed.error.reason == "RuntimeError: no text for this client"
    assert failed.metadata.reply_to_message_id == messages[1].metadata.message_id
    assert failed.metadata.src_node_id == 2
    assert "Traceback" in caplog.text


def test_a_client_that_returns_no_message_gives_an_error_reply(grid):
    [reply] = grid.send_and_receive(ask(grid, "query.nothing", [1]))
    assert reply.error.reason == "TypeError: the ClientApp returned NoneType, not a Message"


def test_an_unknown_action_is_named(grid):
    [reply] = grid.send_and_receive(ask(grid, "query.unheard", [1]))
    assert "unheard" in reply.error.reason


def test_keyboard_interrupt_propagates(grid):
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive(ask(grid, "query.quit"))


def test_a_hanging_client_is_interrupted(tmp_path):
    before = signal.getsignal(signal.SIGALRM)
    with InlineGrid(toy.app, 4, str(tmp_path), timeout=0.3) as grid:
        messages = ask(grid, "query.hang")
        replies = by_client(grid.send_and_receive(messages))
    assert [client for client in replies if replies[client].has_error()] == [2]
    assert replies[2].error.reason == "did not answer within 0.3 s (server.round_timeout)"
    assert replies[2].metadata.reply_to_message_id == messages[2].metadata.message_id
    assert replies[2].metadata.src_node_id == 3
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def group_of(reply):
    return reply.content.config_records["about"]["group"]


def test_a_group_holds_the_first_messages_that_are_alike(tmp_path):
    with InlineGrid(toy.app, 6, str(tmp_path), together=PAIRS) as grid:
        ids = grid.push_messages(ask(grid, "query.fail"))
        answered = [by_client(grid.pull_messages(set(ids))) for _ in range(5)]
    assert [list(replies) for replies in answered] == [[0, 2], [1, 3], [4], [5], []]
    assert group_of(answered[0][0]) == [0, 2]
    assert answered[0][2].error.reason == "ValueError: only me"
    assert [r.error.reason for r in answered[1].values()] == ["RuntimeError: not with me"] * 2
    assert answered[2][4].content.config_records["about"]["partition-id"] == 4  # the app's answer


def test_the_groups_do_not_depend_on_what_is_pulled_first(tmp_path):
    with InlineGrid(toy.app, 6, str(tmp_path), together=PAIRS) as grid:
        ids = grid.push_messages(ask(grid))
        answered = by_client(grid.pull_messages({ids[3]}))
        assert [group_of(reply) for reply in answered.values()] == [[1, 3], [1, 3]]
        grid.push_messages(ask(grid, nodes=[1]))
        assert list(by_client(grid.pull_messages(set(ids)))) == [0, 2]


def test_a_group_may_take_as_long_as_its_clients_in_turn(tmp_path):
    with InlineGrid(toy.app, 4, str(tmp_path), 0.4, PAIRS) as grid:
        replies = by_client(grid.send_and_receive(ask(grid, "query.nap", [1, 3])))
    assert [replies[client].has_error() for client in (0, 2)] == [False, False]
    with InlineGrid(toy.app, 4, str(tmp_path), 0.1, PAIRS) as grid:
        replies = by_client(grid.send_and_receive(ask(grid, "query.nap", [1, 3])))
    late = "did not answer within 0.1 s (server.round_timeout)"
    assert [replies[client].error.reason for client in (0, 2)] == [late, late]


def test_the_alarm_is_off_once_a_client_has_answered(tmp_path):
    with InlineGrid(toy.app, 1, str(tmp_path), timeout=0.2) as grid:
        grid.send_and_receive(ask(grid))
        time.sleep(0.3)


def test_a_timeout_outside_the_main_thread_is_refused(tmp_path):
    caught = []

    def build():
        InlineGrid(toy.app, 1, str(tmp_path))
        with pytest.raises(ValueError, match="main thread") as info:
            InlineGrid(toy.app, 1, str(tmp_path), timeout=1.0)
        caught.append(info)

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert caught


def test_what_is_given_up_never_runs(grid):
    assert grid.send_and_receive(ask(grid), timeout=0.0) == []
    replies = grid.send_and_receive(ask(grid))
    assert [reply.content.metric_records["seen"]["count"] for reply in replies] == [1, 1, 1, 1]


def test_an_unknown_node_is_refused(grid):
    with pytest.raises(ValueError, match="no client has node id 5"):
        grid.push_messages(ask(grid, nodes=[5]))


def test_flowers_fedavg_runs_unchanged(grid):
    """Each round adds the mean client number, 1.5; clients cannot spoil the shared message."""
    config = ConfigRecord({"lr": 0.1})
    result = FedAvg().start(
        grid, ArrayRecord([np.zeros((2, 3))]), num_rounds=3, train_config=config
    )
    [arrays] = result.arrays.to_numpy_ndarrays()
    np.testing.assert_allclose(arrays, np.full((2, 3), 4.5))
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2, 3]
    assert result.evaluate_metrics_clientapp[3]["mean"] == pytest.approx(4.5)
    assert config["lr"] == 0.1


@pytest.mark.parametrize(("clients", "timeout"), [(0, None), (2, 0.0), (2, -1.0)])
def test_bad_numbers_are_refused(tmp_path, clients, timeout):
    with pytest.raises(BadInput, match=r"clients=0|server\.round_timeout="):
        InlineGrid(toy.app, clients, str(tmp_path), timeout)


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"engine.*spark.*inline or ray"):
        make_grid("spark", num_clients=2, state_dir="", threads=1, workers=1, timeout=None)
