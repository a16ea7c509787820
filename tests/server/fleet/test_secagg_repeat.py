"""After a crash in the middle of it a secure round is repeated with the same clients, or not."""

import pytest

import comigs
import comigs_server.grids.inline
import comigs_server.round
from comigs.errors import ComigsError
from comigs.store.state import saved_rounds
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def secure(tree):
    return tree | {"experts": {"specialists": 1, "rank": 2}, "privacy": {"secure": "secagg"}}


@pytest.fixture
def crashed(secure, tmp_path, monkeypatch):
    """The folder of a run whose server dies in round 2, when it calls the function of this name."""

    def crashed(name):
        function, calls = getattr(comigs_server.round, name), []

        def dies(*arguments):  # it is called once in a round
            calls.append(name)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return function(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(comigs_server.round, name, dies)
            with pytest.raises(KeyboardInterrupt):
                comigs.run(secure, out=tmp_path / "run")
        assert saved_rounds(tmp_path / "run/server") == [1]
        return tmp_path / "run"

    return crashed


@pytest.mark.parametrize("name", ["give", "sum_up", "account"])
def test_a_round_that_broke_off_is_repeated_bit_identically(secure, crashed, tmp_path, name):
    """Before training, after it, and when all has been revealed."""
    folder = crashed(name)
    comigs.app.run.resume(folder)
    assert_same_numbers(folder, comigs.run(secure, out=tmp_path / "whole").folder)


def test_a_round_is_not_repeated_with_other_clients_and_goes_on_when_they_are_back(
    secure, crashed, tmp_path, monkeypatch
):
    folder = crashed("sum_up")
    run_client = comigs_server.grids.inline.run_client

    def away(app, message, context):
        if message.metadata.dst_node_id == 2 and message.metadata.message_type != "query":
            message.content["config"]["config"] = ""
        return run_client(app, message, context)

    with monkeypatch.context() as patch:
        patch.setattr(comigs_server.grids.inline, "run_client", away)
        with pytest.raises(ComigsError, match="round 2: 0 of 3 clients answered"):
            comigs.app.run.resume(folder)
    reasons = [event["reason"] for event in events(folder, "failure")]
    assert sum("began with another list of clients" in reason for reason in reasons) == 2
    comigs.app.run.resume(folder)
    assert_same_numbers(folder, comigs.run(secure, out=tmp_path / "whole").folder)
