"""Submitting a run to a SuperLink and following it; `flwr` is a script that repeats answers."""

import json
import sys
from dataclasses import replace

import pytest

from comigs.app import submission
from comigs.app.submission import run_on_superlink
from comigs.config.load import load_config
from comigs.config.settings import RunConfig
from comigs.deploy import flowercli
from comigs.errors import BadInput, ComigsError
from comigs.federation.run import resolve
from comigs.store.eventjson import to_line, to_object
from comigs.store.events import Ended, Started
from comigs.store.metrics import events_of
from comigs.store.passing import Away, Broke, Opened, RoundStarted, Submitted
from comigs_server.checks import run as check
from comigs_server.grids.connection import connection
from tests.samples import ROUND, final, trained

FLWR = """#!{python}
import json, sys
from pathlib import Path
here, (command, *rest) = Path(__file__).parent, sys.argv[1:]
with open(here / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if command == "run":
    (here / "submitted").write_text(Path(rest[rest.index("--run-config") + 1]).read_text())
answers = json.loads((here / "answers.json").read_text())[command]
time = sum(line.startswith(command) for line in (here / "calls").read_text().splitlines()) - 1
print(answers[min(time, len(answers) - 1)])
"""
START, END = Started("comigs", ["a"], 1, 0), Ended(1.0)
TAKEN = json.dumps({"success": True, "run-id": "77"})


def log(*events):
    """What the ServerApp prints: every line of events has the word that is in the first."""
    lines = [f"comigs-event word {to_line(event)}" for event in (Opened(), *events)]
    return "".join(["INFO: hello\n", *lines])


def status(text):
    return json.dumps({"success": True, "runs": [{"status": text}]})


@pytest.fixture
def flwr(tmp_path, monkeypatch):
    """Set what `flwr` answers, each time it is called; returns the folder of the script."""
    home = tmp_path / "flower"
    home.mkdir()
    program = home / "flwr"
    program.write_text(FLWR.format(python=sys.executable))
    program.chmod(0o755)
    links = '[superlink]\ndefault = "mine"\n[superlink.mine]\naddress = "127.0.0.1:1"\n'
    (home / "config.toml").write_text(links + '[superlink.here]\naddress = ":local:"\n')
    monkeypatch.setenv("FLWR_HOME", str(home))
    for module in (flowercli, submission):
        monkeypatch.setattr(module, "program", lambda: str(program))
    monkeypatch.setattr(submission, "LOOK_SECONDS", 0.0)

    def answers(**given):
        answers = {"run": [TAKEN], "ls": [status("finished:completed")], "stop": [TAKEN]} | given
        (home / "answers.json").write_text(json.dumps(answers))
        return home

    return answers


def follow(folder, watch=lambda event: None):
    folder.mkdir()
    run_on_superlink(resolve(RunConfig()), folder, watch)
    return events_of(folder)


def test_the_events_of_the_run_are_written_here(flwr, tmp_path):
    home = flwr(log=[log(START, RoundStarted(1, 1), ROUND, END)])
    seen = []
    assert follow(tmp_path / "run", seen.append) == [START, ROUND, END]
    assert seen == [Submitted("77"), START, RoundStarted(1, 1), ROUND, END]
    calls = (home / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["run", "log", "ls"]
    assert all(" mine " in f"{call} " for call in calls)


def test_the_configuration_arrives_whatever_it_holds(flwr, tmp_path):
    import tomllib

    from comigs.config.load import load_config, to_dict
    from comigs.config.model import DataConfig

    home = flwr(log=[log(START)])
    config = RunConfig(data=DataConfig(name='it\'s "quoted"\\ü'))
    submission.submit(resolve(config), "mine")
    said = tomllib.loads((home / "submitted").read_text())["config"]
    assert load_config(json.loads(said)) == config == load_config(to_dict(config))


def test_a_log_that_breaks_off_is_taken_up_where_it_was(flwr, tmp_path):
    away = json.dumps({"success": False, "error-message": "cannot connect"})
    states = [away, status("running"), status("finished:completed")]
    flwr(log=[log(START), log(START), log(START, ROUND), log(START, ROUND, END)], ls=states)
    seen = []
    assert follow(tmp_path / "run", seen.append) == [START, ROUND, END]
    assert Away("flwr ls: cannot connect") in seen


def test_a_log_that_breaks_off_shortly_before_the_run_ends_is_read_to_the_end(flwr, tmp_path):
    flwr(log=[log(START), log(START, ROUND, END)], ls=[status("finished:completed")])
    assert follow(tmp_path / "run") == [START, ROUND, END]


def test_a_superlink_that_stays_away_ends_the_wait(flwr, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "AWAY_SECONDS", -1.0)
    flwr(log=[""], ls=["no connection"])
    with pytest.raises(ComigsError, match="flwr ls: no connection"):
        follow(tmp_path / "run")


def test_a_run_that_fails_says_why(flwr, tmp_path):
    reason = Broke("round 1: 0 of 3 clients answered")
    flwr(log=[log(START, reason)], ls=[status("finished:failed")])
    with pytest.raises(ComigsError, match="0 of 3 clients answered"):
        follow(tmp_path / "run")
    flwr(log=[log(START)], ls=[status("finished:failed")])
    with pytest.raises(ComigsError, match=r"ended as finished:failed; see: flwr log 77"):
        follow(tmp_path / "other")


def test_a_run_that_is_not_taken_says_why(flwr, tmp_path):
    flwr(run=[json.dumps({"success": False, "error-message": "no\nfederation"})])
    with pytest.raises(ComigsError, match="flwr run: no federation"):
        follow(tmp_path / "run")


def test_ctrl_c_stops_the_run(flwr, tmp_path):
    def interrupt(event):
        if event == ROUND:
            raise KeyboardInterrupt

    home = flwr(log=[log(START, ROUND, END)])
    with pytest.raises(KeyboardInterrupt):
        follow(tmp_path / "run", interrupt)
    assert (home / "calls").read_text().splitlines()[-1].startswith("stop 77 mine")


def test_a_resumed_run_drops_what_is_done_again(flwr, tmp_path):
    flwr(log=[log(START, ROUND, trained(2, 0, "a"))], ls=[status("finished:failed")])
    with pytest.raises(ComigsError):
        follow(tmp_path / "run")
    again = replace(START, round=1)
    flwr(log=[log(again, END)])
    run_on_superlink(resolve(RunConfig()), tmp_path / "run", lambda event: None)
    assert events_of(tmp_path / "run") == [START, ROUND, again, END]


def test_a_connection_must_be_that_of_a_superlink(flwr):
    flwr()
    assert connection(None) == connection("mine") == "mine"
    with pytest.raises(BadInput, match=r"flower.superlink is 'here', which is no SuperLink"):
        connection("here")
    with pytest.raises(BadInput, match=r"put \[superlink.away\] with address"):
        connection("away")


def test_without_a_config_toml_the_error_says_what_to_write(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    with pytest.raises(BadInput, match=r"Flower's default is None, .* into .*config.toml"):
        connection(None)
    (tmp_path / "config.toml").write_text("[superlink")
    with pytest.raises(BadInput, match=r"config.toml cannot be read"):
        connection(None)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("privacy.secure", {"privacy": {"secure": "secagg"}}),
        ("server.strategy", {"server": {"strategy": "Bulyan"}}),
        ("faults.poisoned", {"faults": {"poisoned": [1]}}),
    ],
)
def test_what_depends_on_the_number_of_devices_needs_to_know_it(monkeypatch, key, changes):
    monkeypatch.setattr(check, "connection", lambda name: "comigs")
    with pytest.raises(BadInput, match=f"clients is null; {key} depends on how many"):
        check.check_without_data(resolve(load_config({"engine": {"name": "flower"}} | changes)))
    enough = load_config({"engine": {"name": "flower"}, "clients": 8} | changes)
    check.check_without_data(resolve(enough))


def test_what_a_client_wrote_into_the_log_is_no_event(flwr, tmp_path):
    """A line that looks like an event has another word, or breaks off, or is no JSON."""
    forged = to_object(final(0, "a", after=1.0))
    lines = log(START, ROUND, END).split("\n")
    lies = [
        f"comigs-event {json.dumps(forged)}",
        f"comigs-event other {json.dumps(forged)}",
        "comigs-event word {broken",
        "comigs-event word 5",
        "comigs-event word " + "[" * 5000,
        f"client a failed: comigs-event wor {json.dumps(forged)}",
    ]
    text = "\n".join([*lines[:3], *lies, *lines[3:]])
    flwr(log=[text])
    seen = []
    submission.run_on_superlink(resolve(RunConfig()), tmp_path, seen.append)
    assert seen == [Submitted("77"), START, ROUND, END]
