"""The page of a federation, and the word on whether sharing is likely to help."""

import json
import re

import pytest
from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.data.corpus import client_names
from comigs.errors import BadInput
from comigs.prepare.describe import Description, describe
from comigs.report.advice import advice
from comigs.report.federation import heat_map, labels_of
from tests.fixtures import made_up_text


def differing(mean, chance=0.1):
    return Description(("a", "b"), (), ((0.0, mean), (mean, 0.0)), chance)


@pytest.fixture
def folder(tmp_path):
    client_names.cache_clear()
    for seed, name in enumerate(("ana", "<b>o")):
        (tmp_path / f"{name}.txt").write_text(made_up_text(seed))
    return tmp_path


@pytest.mark.parametrize(
    ("mean", "chance", "words"),
    [
        (
            0.2,
            0.1,
            "Sharing is likely to help: the clients write alike (their words diverge by 0.20",
        ),
        (0.5, 0.4, "Sharing is likely to help"),  # short texts differ by chance
        (1.0, 1.0, "There is too little text to say"),
        (0.41, 0.145, "Sharing may help or hurt"),
        (0.55, 0.083, "Sharing may help or hurt"),
        (0.9, 0.06, "Averaging everything is likely to hurt"),
    ],
)
def test_the_word_says_why_and_that_it_is_a_rule_of_thumb(mean, chance, words):
    said = advice(differing(mean, chance))
    assert said.startswith(words) and f"{mean:.2f}" in said and "rule of thumb" in said


def test_one_client_has_nobody_to_share_with():
    assert advice(Description(("a",), (), ((0.0,),), 0.1)) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [("multilingual", "is likely to hurt"), ("topics", "may help"), ("domains", "may help")],
)
def test_the_bundled_federations_are_on_the_side_that_was_measured(name, words, monkeypatch):
    monkeypatch.setattr("comigs.prepare.describe.encode", lambda tokenizer, text: ())
    assert words in advice(describe(name, "comigs-tiny", lambda *_: None))


def test_parts_of_one_text_are_said_to_be_alike(folder):
    found = describe(str(folder), "comigs-tiny", lambda *_: None)
    assert 0 < found.chance < 0.1
    assert advice(found).startswith("Sharing is likely to help")


def test_a_page_is_whole_and_asks_for_nothing(folder, tmp_path):
    mixes = [{"client": name, "labels": {"x": 3, "<y>": 1}} for name in ("ana", "<b>o")]
    (folder / "manifest.json").write_text(json.dumps({"clients": mixes}))
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["data", "describe", str(folder), "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert "Sharing is likely to help" in " ".join(done.stdout.split())
    assert done.stdout.endswith(f"wrote {page}\n")
    html = page.read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!#)|url\((?!#)|@import', html)
    assert "prefers-color-scheme: dark" in html and "<svg" in html and "var(--s0)" in html
    assert "&lt;b&gt;o" in html and "<b>o" not in html and "&lt;y&gt;" in html
    assert "75%" in html and "Sharing is likely to help" in html


def test_a_picture_has_a_cell_for_every_two_clients():
    svg = heat_map(["a", "b", "c"], [[0, 0.25, 1], [0.25, 0, 0.5], [1, 0.5, 0]])
    assert [svg.count(f">{value}<") for value in ("0.25", "0.50", "1.00", "0.00")] == [2, 2, 2, 0]


def test_what_is_wrong_is_one_line(folder):
    done = CliRunner().invoke(app, ["data", "describe", str(folder), "--page", "no/where.html"])
    assert done.exit_code == 2 and "--page is 'no/where.html'; there is no folder no" in done.stderr
    (folder / "manifest.json").write_text('{"clients": 3}')
    with pytest.raises(BadInput, match=r"manifest\.json is damaged"):
        labels_of(folder)
