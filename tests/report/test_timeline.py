"""What became of each client's update, and when."""

from dataclasses import replace

from comigs.report.page.run import load_run
from comigs.report.page.timeline import moments_of, timeline
from comigs.store.events import Dropped, Failed, Late
from tests.samples import round_done, trained

pytest_plugins = ("tests.report.runs",)


def simulated(number, client, name, seconds):
    spent = {"sim_down": 1.0, "sim_compute": seconds - 2, "sim_up": 1.0, "sim_seconds": seconds}
    return trained(number, client, name, device="phone", **spent)


EVENTS = [
    simulated(1, 0, "de", 10.0),
    simulated(1, 1, "fr", 30.0),
    Late(1, 1, "fr", "phone", "late: 30 s, closed at 20 s"),
    round_done(1, sim_seconds=20.0, sim_clock=20.0),
    Dropped(2, 0, "de", "phone", "phone lost"),
    Failed("fr", "it broke", 1, 2),
    round_done(2, sim_seconds=15.0, sim_clock=35.0),
    trained(3, 0, "de"),  # its round has not closed
]


def run_of(make, *events):
    return replace(load_run(make(names=())), events=list(events))


def test_every_update_is_in_time_late_lost_or_failed_and_begins_with_its_round(make):
    moments = moments_of(run_of(make, *EVENTS))
    assert [(m.round, m.name, m.what, m.start) for m in moments] == [
        (1, "de", "in time", 0.0),
        (1, "fr", "late", 0.0),
        (2, "de", "lost", 20.0),
        (2, "fr", "failed", 20.0),
    ]
    assert [m.trained is not None for m in moments] == [True, True, False, False]


def test_it_is_told_in_a_sentence_and_drawn_against_simulated_time(make):
    found = timeline(run_of(make, *EVENTS))
    assert found.said == (
        "In 2 rounds, 2 clients were asked 4 times: 1 updates came in time, 1 failed, 1 late, "
        "1 lost. 4.00 MB went up, 0.00 MB down."
    )
    svg = found.picture.svg
    assert "simulated seconds" in svg and "var(--bad)" in svg
    assert svg.count("var(--s4)") == 2, "two updates were downloaded"


def test_rounds_that_went_alike_for_all_need_no_picture(make):
    events = [e for n in (1, 2) for e in (trained(n, 0, "a"), trained(n, 1, "b"), round_done(n))]
    run = run_of(make, *events)
    found = timeline(run)
    assert found.picture is None
    assert found.said.startswith("All 2 clients took part in all of 2 rounds.")
    gone = replace(run, events=[*events[:-2], Failed("b", "gone", 1, 2), events[-1]])
    drawn = timeline(gone).picture
    assert "var(--bad)" in drawn.svg and ">round<" in drawn.svg


def test_a_run_without_rounds_has_none(make):
    assert timeline(run_of(make)) is None


def test_of_many_rounds_the_last_are_drawn(make):
    events = [
        event
        for number in range(1, 102)
        for event in (
            *(trained(number, c, f"c{c}") for c in range(number % 30)),
            round_done(number),
        )
    ]
    assert "The last 41 of 101 rounds." in timeline(run_of(make, *events)).picture.caption
