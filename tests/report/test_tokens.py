"""The token view: what the page carries of it, and that no text breaks out of it."""

import base64
import json
import re
from pathlib import Path

import torch

from comigs.evaluation.trace import Trace
from comigs.report.page import write_report
from comigs.report.page.tokens import Looks, View, to_script, told

EVIL = '</script><script>alert("x")</script><!-- &amp; \u2028'


def traced(**more):
    nan = float("nan")
    given = {
        "ids": torch.tensor([5, 6]),
        "begins": [0],
        "experts": ["generalist_0", "specialist_0"],
        "routed": True,
        "gates": torch.tensor([[[0.2, 0.8], [1.0, 0.0]], [[0.6, 0.4], [0.0, 1.0]]]),
        "loss": torch.tensor([nan, 2.004]),
        "base": torch.tensor([nan, 3.5]),
        "generalist": torch.tensor([nan, 2.5]),
    }
    return Trace(**given | more)


def run_of(folder: Path) -> Path:
    (folder / "metrics.jsonl").write_text("")
    return folder


def test_the_page_carries_gates_as_bytes_and_losses_as_numbers():
    [view] = json.loads(to_script([View("de", ["a", "b"], traced())]))
    sent = list(base64.b64decode(view["gates"]))
    assert sent == [51, 204, 255, 0, 153, 102, 0, 255]
    assert (view["loss"], view["base"], view["alone"]) == ([None, 2.0], [None, 3.5], [None, 2.5])
    assert view["layers"] == [1, 2]


def test_text_cannot_end_the_script_it_is_in(tmp_path):
    looks = Looks([View(EVIL, [EVIL, "b"], traced())])
    page = write_report([run_of(tmp_path)], looks=looks).read_text(encoding="utf-8")
    assert len(re.findall(r"<script", page)) == len(re.findall(r"</script", page)) == 2
    [data] = re.findall(r'<script type="application/json" id="token-data">(.*?)</script>', page)
    assert not re.search("[<>&\u2028]", data)
    assert json.loads(data)[0]["pieces"][0] == EVIL
    assert "innerHTML" not in page


def test_what_cannot_be_shown_says_why(tmp_path):
    looks = Looks([], ["<b> is not finished yet"])
    page = write_report([run_of(tmp_path)], looks=looks).read_text(encoding="utf-8")
    assert "&lt;b&gt; is not finished yet" in page
    assert "<script" not in page
    assert "comigs report" in write_report([tmp_path]).read_text(encoding="utf-8")


def test_many_layers_are_thinned_out_to_keep_the_page_small():
    gates = torch.full((96, 2048, 16), 1 / 16)
    big = traced(ids=torch.zeros(2048), gates=gates, experts=["generalist_0"] + ["s"] * 15)
    script = to_script([View("x", ["word"] * 2048, big)] * 8)
    assert len(script) < 4_000_000
    layers = json.loads(script)[0]["layers"]
    assert layers[0] == 1 and 1 < len(layers) < 96


def test_the_sentence_says_who_carried_and_when_nobody_chooses():
    text = told(traced())
    assert "carry 45% of the gate weight (layer by layer 60%, 30%), specialists 55%" in text
    assert "cost 2.00 nats each, with the bare base 3.50; 100%" in text
    one = traced(experts=["generalist_0"], gates=torch.ones(2, 2, 1), routed=False)
    assert "one expert" in told(one)
    assert "no router: each of its 2 experts" in told(traced(routed=False))


def test_a_text_of_which_nothing_is_foretold_has_no_mean():
    nothing = torch.tensor([float("nan")] * 2)
    text = told(traced(loss=nothing, routed=False))
    assert text.endswith("None of these 2 tokens of test text is measured.")
