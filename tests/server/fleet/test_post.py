"""Messages behind a SuperLink that loses some."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from comigs_server.fleet import post
from comigs_server.fleet.post import LOSSES, Post
from comigs_server.grids.embedded import EmbeddedGrid

ONE, TWO = 11, 12


class SuperLink:
    """Nodes as Flower shows them, by when they were activated; `answers` come in this order.

    An answer is a dict of error codes by message id (0: a reply), or the seconds of an outage.
    """

    def __init__(self, *answers, nodes=({ONE: "a", TWO: "a"},)):
        self.answers, self.nodes = list(answers), list(nodes)
        self.sent, self.clock = [], 0.0

    def push_messages(self, messages):
        self.sent += [message.metadata.dst_node_id for message in messages]
        first = len(self.sent) - len(messages)
        return [f"m{first + i}" for i in range(len(messages))]

    def pull_messages(self, message_ids):
        match self.answers[:1]:
            case [float(outage)]:
                self.clock += outage
                del self.answers[0]
            case [answer] if set(answer) <= set(message_ids):
                del self.answers[0]
                return [reply(key, code) for key, code in answer.items()]
        return []

    def get_nodes(self):
        nodes = self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]
        return [SimpleNamespace(node_id=i, last_activated_at=at) for i, at in nodes.items()]


def reply(to, code):
    content = None if code else RecordDict({"config": ConfigRecord({"of": to})})
    message = Message(content or RecordDict(), dst_node_id=1, message_type="train")
    metadata = SimpleNamespace(reply_to_message_id=to)
    error = Error(code, "lost") if code else None
    return SimpleNamespace(
        metadata=metadata, error=error, has_error=lambda: bool(error), content=message.content
    )


@pytest.fixture(autouse=True)
def clock(monkeypatch, tmp_path):
    """Time goes on by sleeping only."""
    EmbeddedGrid.__init__(SimpleNamespace(set_run=lambda _: None), 1, str(tmp_path), None)
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    def monotonic():
        return now[0] + (link[0].clock if link else 0.0)

    link: list[SuperLink] = []
    monkeypatch.setattr(post, "time", SimpleNamespace(sleep=sleep, monotonic=monotonic))
    return link


def outcomes(link, clock, timeout=500.0):
    clock.append(link)
    drafts = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in (ONE, TWO)]
    return {
        node: outcome if isinstance(outcome, str) else outcome.error or outcome.metadata
        for node, outcome in Post(link).exchange(drafts, timeout)
    }


def told(outcome):
    return getattr(outcome, "reply_to_message_id", outcome)


def test_a_message_that_nothing_happens_to_is_sent_once(clock):
    link = SuperLink({"m0": 0}, {"m1": 0})
    found = outcomes(link, clock)
    assert {n: told(o) for n, o in found.items()} == {ONE: "m0", TWO: "m1"}
    assert link.sent == [ONE, TWO]


@pytest.mark.parametrize(
    "code", [ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE]
)
def test_a_lost_message_or_reply_is_sent_again(clock, code):
    link = SuperLink({"m0": code, "m1": 0}, {"m2": 0})
    assert told(outcomes(link, clock)[ONE]) == "m2"
    assert link.sent == [ONE, TWO, ONE]


def test_a_node_that_went_away_gets_its_message_when_it_is_back(clock):
    here, gone = {ONE: "a", TWO: "a"}, {TWO: "a"}
    link = SuperLink(
        {"m0": ErrorCode.NODE_UNAVAILABLE, "m1": 0}, {"m2": 0},
        nodes=[here, gone, gone, {ONE: "b", TWO: "a"}],
    )  # fmt: skip
    assert told(outcomes(link, clock)[ONE]) == "m2"
    assert link.sent == [ONE, TWO, ONE]


def test_a_node_that_stays_away_is_given_up(clock):
    link = SuperLink(
        {"m0": ErrorCode.NODE_UNAVAILABLE, "m1": 0}, nodes=[{ONE: "a", TWO: "a"}, {TWO: "a"}]
    )
    assert outcomes(link, clock, timeout=None)[ONE] == "lost"
    assert link.sent == [ONE, TWO]


def test_a_node_that_was_started_anew_has_forgotten_its_message(clock):
    link = SuperLink({"m1": 0}, {"m2": 0}, nodes=[{ONE: "a", TWO: "a"}, {ONE: "b", TWO: "b"}])
    assert told(outcomes(link, clock)[ONE]) == "m2"
    assert link.sent == [ONE, TWO, ONE]


def test_after_an_outage_of_the_superlink_what_waits_is_sent_again_and_the_first_reply_counts(
    clock,
):
    link = SuperLink({"m1": 0}, 60.0, {"m0": 0})
    assert told(outcomes(link, clock)[ONE]) == "m0"
    assert link.sent == [ONE, TWO, ONE]


def test_what_is_always_lost_ends_as_a_failure(clock):
    lost = ErrorCode.CLIENT_APP_CRASHED
    link = SuperLink({"m0": lost, "m1": 0}, {"m2": lost}, {"m3": lost})
    assert outcomes(link, clock)[ONE].code == lost
    assert link.sent.count(ONE) == LOSSES


def test_an_error_of_the_client_itself_is_its_answer(clock):
    raised = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    link = SuperLink({"m0": raised, "m1": 0})
    assert outcomes(link, clock)[ONE].code == raised
    assert link.sent == [ONE, TWO]


def test_a_client_that_never_answers_is_given_up_after_the_timeout(clock):
    link = SuperLink({"m1": 0})
    assert outcomes(link, clock, timeout=30.0)[ONE] == "no answer within 30 s"


def test_a_message_that_the_superlink_does_not_take_is_told(clock):
    link = SuperLink()
    link.push_messages = lambda messages: []
    found = outcomes(link, clock)
    assert set(found.values()) == {"the SuperLink has refused its message"}


def test_what_is_under_way_may_be_waited_for_later_and_each_message_has_its_own_time(clock):
    link = SuperLink({"m0": 0}, {"m2": 0})
    clock.append(link)
    one, two = (Message(RecordDict(), dst_node_id=n, message_type="train") for n in (ONE, TWO))
    mail = Post(link)
    mail.send([one, two], 30.0)
    assert next(mail.outcomes())[0] == ONE
    assert mail.under_way == {TWO}
    link.clock += 20.0
    mail.send([one], 30.0)
    [(one, came), (two, late)] = mail.outcomes()
    assert (one, came.metadata.reply_to_message_id) == (ONE, "m2")
    assert (two, late) == (TWO, "no answer within 30 s")
    assert not mail.under_way
