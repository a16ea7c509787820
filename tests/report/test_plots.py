"""Names at the ends of lines, and pens that can be told apart."""

import pytest

from comigs.report.plots import Series, lines, pen, spread


def test_names_are_moved_apart_and_stay_in_order():
    assert spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.52, 0.53], 0.1) == pytest.approx([0.5, 0.6, 0.7])
    assert spread([0.9, 0.95, 0.99], 0.1) == pytest.approx([0.8, 0.9, 1.0])


def test_no_two_of_24_lines_look_alike():
    assert len({tuple(pen(index).values()) for index in range(24)}) == 24


def test_each_line_has_its_name_at_its_end_and_no_other_legend():
    series = [Series(f"client-{i}", [(0, 5.0), (1, 4.0)], i) for i in range(8)]
    picture = lines(series, "T", "", "loss")
    assert all(picture.svg.count(f">client-{i}<") == 1 for i in range(8))
    assert not picture.legend
    assert "the colours repeat, dashed" in picture.caption
    assert "dashed" not in lines(series[:6], "T", "", "loss").caption
