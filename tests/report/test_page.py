"""`comigs report` on synthetic run folders."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from comigs.config.model import ModelConfig
from comigs.errors import BadInput
from comigs.report.page import write_report
from comigs.track.tensorboard import write_events
from tests.report.runs import Make, append, client, final, text_of, whole

pytest_plugins = ("tests.report.runs",)


class _Page(HTMLParser):
    """Collects the cells of all table rows, and every tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


NUMBERS = ["1,234.6", "98.8", "61.7", "20.0\u00d7", "1.375", "0.79 MB", "1.00 GB", "75 s"]
NUMBERS += ["107,520", "65,536"]
NONE = "\u2013"


def test_the_final_table_and_its_mean_are_on_the_page(make: Make) -> None:
    path = write_report([make()])
    assert path.name == "report.html"
    rows = _Page(path).rows
    assert ["de", *NUMBERS] in rows
    assert ["mean", *NUMBERS] in rows
    assert "2 of 2 clients gained" in text_of(path)


def test_a_client_that_lost_is_not_counted_as_a_winner(make: Make) -> None:
    folder = make(names=("de",))
    append(folder, final(1, "fr", after=2000.0))
    assert "1 of 2 clients gained" in text_of(write_report([folder]))


def test_pictures_config_and_environment(make: Make) -> None:
    text = text_of(write_report([make(seed=4711)]))
    assert text.count("<svg") == 5  # where clients ended, perplexity twice, loss, time
    assert "seed: 4711" in text
    assert "2.13.0" in text
    assert "generalist experts averaged" in text


def test_nothing_is_fetched_and_ids_are_unique(make: Make) -> None:
    text = text_of(write_report([make()]))
    assert not re.search(r"https?:|<script|<link|@import|src=", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for pair in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert "".join(pair) in ids


def test_names_and_reasons_cannot_inject_html(make: Make) -> None:
    evil = "<script>alert(1)</script>"
    folder = make(names=(evil, "$a_$"), name="x <img>")
    append(folder, {"event": "failure", "round": 2, "client": 0, "name": evil, "reason": evil})
    page = _Page(write_report([folder]))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert ["2", evil, evil] in page.rows


def test_failures_and_damaged_states_are_listed(make: Make) -> None:
    folder = make()
    append(
        folder,
        {"event": "failure", "client": 1, "name": "fr", "reason": "gone"},
        {"event": "damaged", "round": 2, "reason": "cut short", "resumed_from": 1},
    )
    rows = _Page(write_report([folder])).rows
    assert ["final test", "fr", "gone"] in rows
    assert ["2", "saved state", "cut short"] in rows


def test_an_unfinished_run_says_how_to_go_on(make: Make) -> None:
    folder = make(name="two words", end=False)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"event": "cli')
    text = text_of(write_report([folder])).replace("&#39;", "'")
    assert "1 of 2 rounds" in text
    assert f"comigs run --resume {shlex.quote(str(folder))}" in text


def test_a_single_round_is_told_in_numbers(make: Make) -> None:
    text = text_of(write_report([make(end=False)]))
    assert text.count("<svg") == 0
    assert "One round shows no course" in text


@pytest.mark.slow
def test_a_finished_run_resumed_and_stopped_again_is_unfinished(make: Make) -> None:
    folder = make()
    assert "Not finished" not in text_of(write_report([folder]))
    append(folder, {"event": "start", "method": "comigs", "clients": [], "rounds": 2, "round": 1})
    assert "Not finished" in text_of(write_report([folder]))


@pytest.mark.parametrize("missing", ["metrics.jsonl", "config.yaml", "environment.json"])
def test_a_missing_part_is_left_out(make: Make, missing: str) -> None:
    folder = make()
    (folder / missing).unlink()
    assert "comigs" in text_of(write_report([folder]))


def test_validation_that_was_not_due_leaves_no_picture(make: Make) -> None:
    folder = make(end=False)
    events = [
        event
        for number in (1, 2)
        for event in (client(number, 0, "de", valid_ppl=None), whole(number, valid_ppl=None))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    text = text_of(write_report([folder]))
    assert "Training loss" in text and "Validation perplexity" not in text


@pytest.mark.slow
def test_many_clients_become_one_mean_line(make: Make) -> None:
    folder = make(names=tuple(f"c{i}" for i in range(30)))
    text = text_of(write_report([folder]))
    assert "mean of 30" in text and "Thin: 30 lines" in text


def test_what_is_not_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInput, match=r"is not a run folder") as caught:
            write_report([folder])
        assert "\n" not in str(caught.value)


def test_a_damaged_config_is_refused_in_one_line(make: Make) -> None:
    folder = make()
    for content in ("a: [", "- a list", "model: 3"):
        (folder / "config.yaml").write_text(content)
        with pytest.raises(BadInput, match=r"config\.yaml") as caught:
            write_report([folder])
        assert "\n" not in str(caught.value)
    (folder / "config.yaml").write_text("")
    (folder / "environment.json").write_text("[1]")
    with pytest.raises(BadInput, match=r"environment\.json"):
        write_report([folder])


@pytest.mark.slow
def test_several_runs_share_one_page_that_replaces_none_of_theirs(
    make: Make, tmp_path: Path
) -> None:
    one, two = make("one"), make("two", method="fedavg", end=False)
    path = write_report([one, two])
    assert path == one / "report-with-two.html"
    assert not any((folder / "report.html").exists() for folder in (one, two))
    assert write_report([one, two], tmp_path / "my.html") == tmp_path / "my.html"
    assert "<title>method=comigs, method=fedavg" in text_of(path)
    rows = _Page(path).rows
    assert ["method=comigs", "one", "comigs", "finished", *NUMBERS] in rows
    assert ["method=fedavg", "two", "fedavg", "1 of 2 rounds", *[NONE] * 10] in rows
    assert ["method", "comigs", "fedavg"] in rows
    assert ["de", "61.7", NONE] in rows
    assert not [row for row in rows if row[:1] == ["seed"]]


def test_runs_of_the_same_name_are_told_apart_by_their_paths(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, two = make("run"), make("a/run")
    assert f"<title>{one}, {two}" in text_of(write_report([one, two]))


def test_tensorboard_events_replace_the_old_ones(make: Make) -> None:
    folder = make()
    (folder / "events").mkdir()
    (folder / "events" / "old").touch()
    write_events(folder)
    (file,) = (folder / "events").iterdir()
    content = file.read_bytes()
    for tag in (b"loss/de", b"valid_ppl/fr", b"round/seconds", b"round/bytes_up"):
        assert content.count(tag) == 2


def test_a_simulated_run_shows_what_its_devices_did(make: Make) -> None:
    folder = make(names=(), model=ModelConfig(dtype=["float32", "float32", "bfloat16"]))
    spent = {"sim_down": 1.0, "sim_compute": 20.0, "sim_up": 4.0, "sim_joules": 70.0}
    phone = spent | {"device": "phone"}
    missed = {"round": 2, "device": "phone", "event": "dropped", "client": 1, "name": "fr"}
    append(
        folder,
        client(1, 0, "de", **phone),
        client(1, 1, "fr", **phone | {"sim_compute": 40.0}),
        client(1, 2, "it", **spent | {"device": "board"}),
        missed | {"reason": "phone lost after 3 simulated seconds"},
        missed | {"event": "late", "client": 0, "name": "de", "reason": "late: 30 s"},
        whole(2, sim_clock=150.0, sim_joules=280.0),
    )
    page = write_report([folder])
    assert ["board", "1", "1", "0", "0", "1.0 s", "20 s", "4.0 s", "70 J"] in _Page(page).rows
    assert ["phone", "2", "2", "1", "1", "1.0 s", "30 s", "4.0 s", "140 J"] in _Page(page).rows
    assert ["fr", "2", "phone lost after 3 simulated seconds", *[NONE] * 5] in _Page(page).rows
    assert "2 min 30 s of simulated time" in text_of(page)
    assert "comigs-tiny, float32, bfloat16" in text_of(page)


def test_a_run_without_devices_says_nothing_of_them(make: Make) -> None:
    assert "On the devices" not in text_of(write_report([make()]))
