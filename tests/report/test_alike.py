"""How alike experts are: the picture, the sentence, and what the page carries."""

import json
import math
import re

import pytest

from comigs.report.matrix import heat_map, two_places
from comigs.report.page import write_report
from comigs.report.page.alike import Alike, Likeness, draw, said
from tests.report.runs import text_of

pytest_plugins = ("tests.report.runs",)
NAN = math.nan
FIRST = [[1, 0.2, 0.6], [0.2, 1, -0.4], [0.6, -0.4, 1]]
SECOND = [[1, 0.4, NAN], [0.4, 1, NAN], [NAN, NAN, NAN]]


def likeness(*layers, names=("de", "fr", "it"), kind="specialist"):
    return Likeness(kind, names, dict(enumerate(layers, 1)))


def test_the_mean_over_layers_leaves_out_what_a_client_does_not_have():
    mean = likeness(FIRST, SECOND).mean
    assert mean[0] == pytest.approx([1, 0.3, 0.6])
    assert mean[2] == pytest.approx([0.6, -0.4, 1])


def test_the_sentence_names_the_most_and_the_least_alike():
    text = said(likeness(FIRST))
    assert "specialists have learnt different things: the mean cosine is 0.13" in text
    assert "Most alike are it and de (0.60), least it and fr (-0.40)" in text
    two = [[1, 0.8], [0.8, 1]]
    assert said(likeness(two, names=("de", "fr"), kind="generalist")) == (
        "The clients' generalists have learnt much the same: the mean cosine is 0.80."
    )
    assert "No two clients" in said(likeness(SECOND[2:] * 3))


def test_a_cell_is_as_strong_as_its_number_and_opposites_have_another_hue():
    svg = heat_map("abc", [[1, 0.5, -1.0], [0.5, 1, NAN], [-1.0, NAN, 1]], "T", 1.0, "k")
    cells = dict(re.findall(r'<g id="k-(\d-\d)">\s*<path[^>]*style="([^"]*)"', svg))
    assert len(cells) == 6, "the diagonal has none"
    assert "--s0" in cells["0-1"] and "opacity: 0.275" in cells["0-1"]
    assert "--s1" in cells["0-2"] and "opacity: 0.55" in cells["0-2"]
    assert "opacity: 0;" in cells["1-2"] + ";"
    assert two_places(-0.001) == "0.00"
    assert [svg.count(f">{text}<") for text in ("0.50", "-1.00", "\u2013")] == [2, 2, 2]


@pytest.mark.slow
def test_of_many_clients_cells_have_no_numbers():
    svg = heat_map([f"c{i}" for i in range(30)], [[0.25] * 30] * 30, "T", 1.0, "k")
    assert "0.25" not in svg and "30 c29" in svg
    assert len(re.findall(r'<g id="k-\d+-\d+">', svg)) == 30 * 29


def test_the_script_has_the_mean_and_each_layer_with_nothing_where_nothing_is():
    drawn = draw(likeness(FIRST, SECOND), "k")
    script = json.loads(drawn.script)
    assert (drawn.layers, script["key"]) == ([1, 2], "k")
    assert script["shown"][2] == [1, 0.4, None, 0.4, 1, None, None, None, None]
    assert script["full"] == pytest.approx(0.55 / 0.6, abs=1e-4), "opacity of a cosine of 1"
    assert draw(likeness(FIRST), "k").layers == [], "one layer is no choice"


@pytest.mark.slow
def test_the_page_has_the_pictures_of_each_run(make):
    runs = [make("one"), make("two", seed=5)]
    pair = [[1.0, 0.5], [0.5, 1.0]]
    found = {run: [likeness(pair, pair, names=("de", "fr"))] for run in runs}
    text = text_of(write_report(runs, alike=Alike(found, ["<gone>"])))
    assert "Specialists, seed=42" in text and "Specialists, seed=5" in text
    assert "&lt;gone&gt;" in text
    assert text.count('<option value="2">layer 2</option>') == 2
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "adds it" in text_of(write_report(runs))
