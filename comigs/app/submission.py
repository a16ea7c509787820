"""Submit a run to a SuperLink and follow it, by Flower's own commands: its log has its events."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comigs.deploy.flowerapp import BUNDLE
from comigs.deploy.flowercli import QUIET, ask_flwr, program
from comigs.errors import ComigsError, Stopped
from comigs.federation.run import Run
from comigs.store.eventjson import from_line
from comigs.store.events import Ended, Event, Kept, Started
from comigs.store.passing import Away, Broke, Opened, Submitted
from comigs_server.app import EVENT
from comigs_server.grids.connection import connection
from comigs_server.journal import Journal, Watcher

LOOK_SECONDS = 3.0  # between looks at a SuperLink that is away, or a run that has not ended
AWAY_SECONDS = 600.0  # a SuperLink may be away for so long


def run_on_superlink(run: Run, folder: Path, watch: Watcher) -> None:
    """Submit the run, and write its events to `folder` until it ends; Ctrl-C stops the run.

    Raises:
        Stopped: a watcher asked for it.
        ComigsError: the SuperLink does not take the run, is away for long, or the run failed.
    """
    link = connection(run.config.flower.superlink)
    number = submit(run, link)
    journal = Journal(folder, watch)
    journal.tell(Submitted(number))
    try:
        _follow(number, link, journal)
    except (KeyboardInterrupt, Stopped):
        with contextlib.suppress(ComigsError):
            _flwr("stop", number, link)
        raise


def submit(run: Run, link: str) -> str:
    """Hand the run to the SuperLink; return Flower's id of it.

    Args:
        link: name of the connection in Flower's config.toml.

    Raises:
        ComigsError: why it was not taken.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle, settings = Path(folder) / "app", Path(folder) / "run.toml"
        bundle.mkdir()
        (bundle / "pyproject.toml").write_text(BUNDLE, encoding="utf-8")
        text = json.dumps(run.text)  # a JSON string is a TOML string
        settings.write_text(f"config = {text}\n", encoding="utf-8")
        answer = _flwr("run", str(bundle), link, "--run-config", str(settings))
    return str(answer["run-id"])


def _follow(run: str, link: str, journal: Journal) -> None:
    """Repeat the run's events here, from its first, until it has ended."""
    seen, reason, away_since, status, over = 0, "", None, "", False
    while True:
        for number, event in enumerate(_events(run, link)):
            if number < seen:
                continue
            seen, away_since = number + 1, None
            over = over or isinstance(event, Broke | Ended)
            if isinstance(event, Broke):
                reason = event.reason
            elif isinstance(event, Kept):
                if isinstance(event, Started):
                    journal.rewind(event.round)
                journal.write(event)
            elif not isinstance(event, Opened):
                journal.tell(event)
            if journal.stop:
                raise Stopped(journal.stop)
        if status.startswith("finished"):
            break
        try:
            status = _flwr("ls", link, "--run-id", run)["runs"][0]["status"]
        except ComigsError as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > AWAY_SECONDS:
                raise
            journal.tell(Away(str(error)))
            time.sleep(LOOK_SECONDS)
            continue
        if not status.startswith("finished"):
            time.sleep(LOOK_SECONDS)
        elif over:
            break
        # Else the log broke off before its end, and the run is over by now: read it again.
    if status != "finished:completed":
        raise ComigsError(reason or f"the run ended as {status}; see: flwr log {run} --show")


def _events(run: str, link: str) -> Iterator[Event]:
    """Events in the log of the run, from its start until the log ends or breaks off.

    The first line has the word that all events have (`comigs_server.app.channel`): what a client
    wrote into the log is none.
    """
    command = [program(), "log", run, link, "--stream"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=os.environ | QUIET,
    ) as process:
        assert process.stdout
        word = ""
        try:
            for line in process.stdout:
                _, found, text = line.partition(EVENT)
                mine, _, event = text.partition(" ")
                whole = found and line.endswith("\n") and mine == (word := word or mine)
                if whole and (known := from_line(event)) is not None:  # None: the log damaged it
                    yield known
        finally:
            process.kill()


def _flwr(*arguments: str) -> dict[str, Any]:
    """The JSON that one of Flower's commands answers.

    Raises:
        ComigsError: with Flower's reason, when the command did not succeed.
    """
    answer = ask_flwr(*arguments)
    if not answer.get("success"):
        raise ComigsError(f"flwr {arguments[0]}: {answer['error-message']}")
    return answer
