"""`comigs watch`: the events of a run that somebody else writes."""

import pytest
from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.errors import BadInput
from comigs.store.eventjson import to_line
from comigs.store.events import Ended, Started
from comigs.store.passing import EvaluationStarted, RoundStarted
from comigs.store.whole import append, write_whole
from comigs.track.follow import follow
from tests.samples import final, round_done, trained

START = Started("comigs", ["de", "fr"], 2, 0)
FIRST = [trained(1, 0, "de"), trained(1, 1, "fr"), round_done(1)]
SECOND = [trained(2, 0, "de"), trained(2, 1, "fr"), round_done(2)]
END = [final(0, "de"), Ended(20.0)]
WAIT = [RoundStarted(1, 2)], [RoundStarted(2, 2)], [EvaluationStarted(2)]


def written(*events):
    return "".join(map(to_line, events))


def followed(folder, *files):
    """What is told when the file changes from one text to the next, at each look, as a journal
    changes it: lines are appended, or it is written anew."""
    said, coming, path = [], iter(files), folder / "metrics.jsonl"

    def sleep(seconds):
        folder.mkdir(exist_ok=True)
        before, now = path.read_text() if path.exists() else "", next(coming)
        if now.startswith(before):
            append(path, now.removeprefix(before))
        else:
            write_whole(path, now)

    return list(follow(folder, said.append, sleep)), said


def test_a_run_is_followed_from_before_it_begins_to_its_end(tmp_path):
    first, second, end = (written(*part) for part in ([START, *FIRST], SECOND, END))
    cut = written(START)[:20]
    texts = (cut, first, first + second[:30], first + second, first + second + end)
    events, said = followed(tmp_path / "run", *texts)
    begin, then, last = WAIT
    assert events == [START, *begin, *FIRST, *then, *SECOND, *last, *END]
    assert said[0].startswith(f"waiting for {tmp_path / 'run'} to begin")


def test_a_finished_run_is_told_at_once(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(written(START, *FIRST, *SECOND, *END))
    events, said = followed(tmp_path)
    assert events[-1] == END[-1] and said == []


def test_rounds_that_a_resumed_run_does_again_are_told_again(tmp_path):
    again = Started("comigs", ["de", "fr"], 2, 1)
    first, lost = written(START, *FIRST), written(*SECOND[:1])
    events, _ = followed(tmp_path, first + lost, first + written(again, *SECOND, *END))
    assert events.count(SECOND[0]) == 2 and events.count(FIRST[0]) == 1


def test_a_run_without_news_is_told_how_to_go_on(tmp_path):
    text = written(START, *FIRST)
    _, said = followed(tmp_path, *[text] * 300, text + written(*SECOND, *END))
    assert any(f"comigs run --resume {tmp_path}" in each for each in said)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("x")
    for place in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(BadInput, match="run folder"):
            next(follow(place, print))


def test_the_command_shows_a_finished_run_and_its_table(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(written(START, *FIRST, *SECOND, *END))
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "valid ppl 200.0 of the bare base" in result.output
    assert "61.7" in result.output
