"""Traces of made-up people: devices charge and are idle at night, and now and then by day.

Every number here is an assumption.
"""

import random

from comigs.errors import BadInput
from comigs.seeds import derive
from comigs.traces.windows import DAY, HOUR, LONGEST, Traces, Window, joined

BEDTIME, SLEEP = (23.0, 1.0), (7.5, 1.0)  # hours: mean and deviation, between people
NIGHTLY = 0.5  # hours: how much both differ from night to night
PLUGGED, TOPPED_UP = 0.7, 0.2  # probability that it charges in a night, and for an hour by day


def diurnal(clients: int, days: int, zones: float, seed: int) -> Traces:
    """Traces of `clients` devices for `days` days; second 0 is midnight in the middle zone.

    Args:
        zones: hours between the eastern and the western end, over which people live evenly.
        seed: with the device's number, where all is drawn from.

    Raises:
        BadInput: `zones` is not from 0 to 24.
    """
    if not 0 <= zones <= 24:
        raise BadInput(f"--zones is {zones:g}; it must be hours from 0 to 24")
    if not 0 < days * DAY <= LONGEST:
        raise BadInput(f"--days is {days}; it must be from 1 to {LONGEST // DAY}")
    period = days * DAY
    people = (_person(derive(seed, i, "diurnal trace"), days, zones) for i in range(clients))
    return Traces(period, {str(i): joined(each, period) for i, each in enumerate(people)})


def _person(seed: int, days: int, zones: float) -> list[Window]:
    draw = random.Random(seed)
    bedtime = draw.gauss(*BEDTIME) + draw.uniform(-zones / 2, zones / 2)
    sleep = draw.gauss(*SLEEP)
    found = []
    for day in range(days):
        plugged, topped_up = draw.random() < PLUGGED, draw.random() < TOPPED_UP
        start = 24 * day + bedtime + draw.gauss(0, NIGHTLY)
        hours = max(1.0, sleep + draw.gauss(0, NIGHTLY))
        noon = start + draw.uniform(sleep + 1, 23)
        found += [(start, start + hours)] if plugged else []
        found += [(noon, noon + 1)] if topped_up else []
    return [(round(start * HOUR), round(end * HOUR)) for start, end in found]
