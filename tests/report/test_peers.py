"""The matrices of what clients tell of each other."""

import re

from comigs.report.page.peers import of_peers
from tests.samples import final, trained


def told(row, **more):
    return {"metrics": {f"peers/graph/{j}": value for j, value in row.items()} | more}


def test_a_client_s_newest_numbers_are_its_row():
    events = [
        trained(1, 0, "de", **told({1: 0.5, 2: 0.5})),
        trained(1, 1, "fr", **told({0: 0.25}, router_entropy=0.1)),
        trained(2, 2, "it", metrics={"routing/2/entropy": 0.3}),
        trained(2, 0, "de", **told({1: 0.75, 2: 0.0})),
    ]
    [picture] = of_peers(events)
    assert picture.title == "Who works with whom" and "3 it" in picture.svg
    texts = dict(re.findall(r'<g id="graph-(\d-\d)-text">.*?>([^<]+)</text>', picture.svg, re.S))
    written = {place: text.strip() for place, text in texts.items()}
    known = {"0-1": "0.75", "0-2": "0.00", "1-0": "0.25"}
    assert written == known | dict.fromkeys(("1-2", "2-0", "2-1"), "\u2013")


def test_both_numbers_have_their_picture_and_none_has_none():
    events = [
        trained(1, 0, "de", metrics={"peers/influence/1": -0.5, "peers/graph/1": 1.0}),
        final(1, "fr"),
    ]
    assert [p.title for p in of_peers(events)] == ["Who works with whom", "Who helps whom"]
    assert of_peers([final(0, "de"), trained(1, 0, "de")]) == []
