"""Backlog: which waiting message starts next."""

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from comigs_server.grids.backlog import Backlog
from comigs_server.grids.inline import InlineGrid


def fill(*jobs, message_type="train"):
    """Jobs of the nodes given, each with its messages' ids."""
    InlineGrid(ClientApp(), 1, "")  # names this process to Flower
    backlog = Backlog()
    jobs = [tuple(Message(RecordDict(), node, message_type) for node in nodes) for nodes in jobs]
    ids = [[backlog.number(message) for message in job] for job in jobs]
    for job in jobs:
        backlog.add(job)
    return backlog, jobs, ids


def drain(backlog, busy=()):
    order = []
    while (job := backlog.slowest(busy)) is not None:
        backlog.take(job)
        order.append([message.metadata.dst_node_id for message in job])
    return order


def test_unknown_nodes_keep_push_order():
    backlog, _, _ = fill([3], [1, 4], [2])
    assert drain(backlog) == [[3], [1, 4], [2]]


def test_the_slowest_node_comes_first_and_an_unknown_one_before_it():
    backlog, jobs, _ = fill([1], [2], [3], [4])
    for job, seconds in zip(jobs[:3], (5.0, 1.0, 9.0), strict=True):
        backlog.took(job, seconds)
    assert drain(backlog) == [[4], [3], [1], [2]]


def test_a_job_is_as_slow_as_its_slowest_node():
    backlog, jobs, _ = fill([1], [2], [3])
    for job, seconds in zip(jobs, (5.0, 1.0, 9.0), strict=True):
        backlog.took(job, seconds)
        backlog.take(job)
    for job in (jobs[0], jobs[1] + jobs[2]):
        backlog.add(job)
    assert drain(backlog) == [[2, 3], [1]]


def test_a_busy_node_waits_and_its_messages_stay_in_push_order():
    backlog, jobs, ids = fill([1, 3], [2], [1])
    backlog.took(jobs[1], 1.0)
    assert drain(backlog, busy={3}) == [[2]]
    assert backlog.first(ids[0]) is jobs[0]
    assert drain(backlog) == [[1, 3], [1]]


def test_first_follows_push_order_whatever_the_order_of_the_ids():
    backlog, jobs, ids = fill([1], [2], [3])
    assert backlog.first([*ids[2], *ids[1]]) is jobs[1]
    backlog.give_up([key for job in ids for key in job])
    assert backlog.first(ids[0]) is None


def test_of_a_job_only_what_is_given_up_goes():
    backlog, jobs, ids = fill([1, 2], [3])
    backlog.give_up(ids[0][:1])
    assert backlog.first(ids[0]) == jobs[0][1:]


def test_what_is_put_back_comes_first():
    backlog, jobs, _ = fill([1], [2, 3])
    backlog.take(jobs[1])
    backlog.put_back((jobs[1][0],), (jobs[1][1],))
    assert drain(backlog) == [[2], [3], [1]]
