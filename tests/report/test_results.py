"""Who gained, against what; and the courses that the page draws."""

import base64
import csv
import io
import re
from dataclasses import replace

import pytest

from comigs.config.experts import ExpertsConfig
from comigs.report.page import write_report
from comigs.report.page.alone import trained_alone
from comigs.report.page.dumbbell import draw_dumbbell
from comigs.report.page.pictures import _moved, _received, pictures_of
from comigs.report.page.routing import heat_maps
from comigs.report.page.run import load_run
from comigs.report.page.words import what_was_run
from comigs.store.events import ClientTrained
from tests.report.runs import append, client, final, text_of, whole
from tests.samples import TESTED, round_done

pytest_plugins = ("tests.report.runs",)


def alone_in(make, name, method, after, **config):
    folder = make(name, names=(), method=method, **config)
    append(folder, final(0, "de", after=after), final(1, "fr", after=after))
    return folder


def test_who_lost_against_training_alone_is_named_before_the_gain_on_the_base(make):
    folder = make(names=("de",))
    append(folder, final(1, "fr", after=30.0))
    alone_in(make, "by-itself", "local", 40.0)
    text = text_of(write_report([folder]))
    first = "1 of 2 clients gained against training alone (local, run by-itself); de did not."
    assert text.index(first) < text.index("2 of 2 clients gained against the base")
    assert "Mean test perplexity 45.9 against 40.0" in text


def test_a_run_alone_counts_only_with_the_same_settings_and_clients_that_ended(make):
    run = load_run(make())
    make("unfinished", method="local", end=False)
    alone_in(make, "seed", "local", 40.0, seed=5)
    alone_in(make, "rank", "local", 40.0, experts=ExpertsConfig(rank=2))
    (make("damaged") / "config.yaml").write_text("method: local\na: [\n")
    assert trained_alone(run, []) is None
    assert "against training alone:" in text_of(write_report([run.folder]))
    local = alone_in(make, "local", "local", 40.0)
    assert trained_alone(run, []).folder == local.resolve()
    mixture = load_run(alone_in(make, "mixture", "local-moe", 40.0))
    assert trained_alone(run, [mixture]) == mixture
    assert trained_alone(mixture, []) is None


def test_averaging_that_hurt_is_told_and_drawn_red(make):
    hurt, helped = ({"before": 50.0, "after": 60.0}, {"before": 60.0, "after": 50.0})
    folder = make(names=())
    append(folder, final(0, "de", **hurt), final(1, "fr", **helped))
    text = text_of(write_report([folder]))
    assert "Averaging at the very end made 1 of 2 better" in text
    row = {"name": "de", "pretrained": 900.0}
    assert "var(--bad)" in draw_dumbbell([row | hurt], {}).svg
    assert "var(--bad)" not in draw_dumbbell([row | helped], {}).svg
    assert "base 900" in draw_dumbbell([row | helped], {}).svg


def test_no_picture_of_clients_that_diverged():
    rows = [{"name": "de", "pretrained": 9.0, "before": 9.0, "after": float("inf")}]
    assert draw_dumbbell(rows, {}) is None


def test_perplexity_stands_at_the_rounds_and_bytes_that_led_to_it(make):
    run = load_run(make(names=("de",)))
    points = _received(run.of(ClientTrained), run, 60.0)
    assert points == [(0, 300.0), (1, 150.0), (2, 60.0)]
    moved = round_done(1).bytes_up
    found = _moved(points, run, ("bytes_up", "bytes_down"), 1)
    assert found == [(0, 300.0), (moved, 150.0), (2 * moved, 60.0)]
    assert _moved(points, run, ("sim_seconds",), 1) == []


@pytest.mark.slow
def test_what_is_measured_of_routers_is_drawn_layer_by_layer(make):
    folder = make(names=())
    for number in (1, 2):
        told = {"routing/1/generalist_share": 0.2, "routing/2/generalist_share": 0.9, "peak": 0.5}
        append(folder, client(number, 0, "de", metrics=told), whole(number))
    titles = [picture.title for picture in pictures_of(load_run(folder)) if picture]
    assert "Generalists' share of the gates" in titles and "Peak" in titles
    assert text_of(write_report([folder])).count(' class="heat">') == 1, "brighter on dark pages"


def test_experts_that_only_the_ninth_client_has_and_unknown_parts_are_no_pictures(make):
    folder = make(names=())
    for number, of in ((1, 9), (2, 9)):
        for each in range(of):
            loads = {f"routing/1/load/expert_{e}": 0.2 for e in range(3 if each == 8 else 2)}
            told = loads | {"routing/1/unheard_of": 1.0}
            append(folder, client(number, each, f"c{each}", metrics=told))
    pictures = heat_maps(load_run(folder).of(ClientTrained))
    assert [each.title for each in pictures] == ["Load of expert 0", "Load of expert 1"]


def test_what_is_told_layer_by_layer_is_not_in_the_table(make):
    folder = make(names=())
    append(folder, final(0, "de", metrics={"routing/1/entropy": 0.25, "peak": 0.5}))
    text = text_of(write_report([folder]))
    assert "peak 0.5" in text and "routing/1" not in text


def test_bytes_go_on_after_a_round_that_cannot_be_read(make):
    run = load_run(make(names=("de",)))
    run = replace(run, events=[round_done(1), round_done(3)])
    moved = round_done(1).bytes_up
    assert _moved([(3, 5.0)], run, ("bytes_up",), 1) == [(2 * moved, 5.0)]


@pytest.mark.filterwarnings("error")
def test_names_in_letters_that_no_font_here_has_are_drawn_in_peace(make):
    assert "日本</text>" in text_of(write_report([make(names=("日本",))]))


def test_the_csv_has_every_client_and_no_formulas(make):
    folder = make(names=("=1+1",))
    [link] = re.findall(r'href="data:text/csv;base64,([^"]+)"', text_of(write_report([folder])))
    [row] = csv.DictReader(io.StringIO(base64.b64decode(link).decode()))
    assert (row["run"], row["client"], row["after"]) == ("mine", "'=1+1", str(TESTED.after))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("comigs", "each its own, which stays there: 2 rounds of"),
        ("centralized", "all of it in one place"),
        ("pretrained", "as it is on text of"),
    ],
)
def test_the_sentence_is_true_of_the_method(make, method, said):
    assert said in what_was_run(load_run(make(method=method)))


def test_a_run_without_settings_has_no_sentence(make):
    run = load_run(make())
    assert what_was_run(replace(run, config={"rounds": 2})) == ""
