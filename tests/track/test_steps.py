"""How far a step is, where there is no terminal."""

import io

from rich.console import Console

from comigs.track.steps import _lines


def test_a_line_now_and_then_with_the_time_left_of_this_step():
    out, now = io.StringIO(), [0.0]
    show = _lines(Console(file=out, width=80), lambda: now[0])

    def at(seconds, *told):
        now[0] = float(seconds)
        show(*told)

    at(0, "reading", 0, 100)
    at(29, "reading", 50, 100)  # too soon for a line
    at(40, "reading", 80, 100)
    at(50, "writing", 1, 9)
    at(80, "writing", 3, 9)
    at(120, "checking", 7, None)
    assert out.getvalue().splitlines() == [
        "reading: 80%, about 10 s left",
        "writing: 33%, about 60 s left",
        "checking ...",
    ]
