"""Who took part when, what became of it, and what travelled: rounds or simulated time x clients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comigs.report.page.run import Run
from comigs.report.plots import BAD, INK, PALETTE, STYLE, Picture, to_svg
from comigs.store.events import ClientTrained, Dropped, Failed, Late

CLIENTS, CELLS, ROWS = 40, 1200, 1500  # that a picture, and a table, has room for
LONGEST = 24  # characters of a name
PARTS = {"sim_down": PALETTE[4], "sim_compute": PALETTE[0], "sim_up": PALETTE[2]}
TITLE = "Who took part, and when"
IN_TIME = (
    "A bar is one update: download (yellow), compute (blue), upload (green). Thin, with a ring at "
    "its end: it came after the round had closed. Cross: the device was lost in this round. Plus: "
    "failed. Upright lines: a round closes."
)
BY_ROUND = (
    "Filled: an update, stronger with more bytes, at most {:.3g} MB up and down. Plus: failed. "
    "Empty: not asked."
)


@dataclass(frozen=True)
class Moment:
    """What one client did in one round.

    Attributes:
        what: in time, late, lost or failed.
        start: simulated seconds at which the round began; None without devices.
        trained: what it told; None where nothing came.
        reason: of what was not in time.
    """

    round: int
    client: int
    name: str
    what: str
    start: float | None
    trained: ClientTrained | None
    reason: str = ""

    @property
    def bytes(self) -> int:
        return self.trained.bytes_up + self.trained.bytes_down if self.trained else 0


@dataclass(frozen=True)
class Timeline:
    """All moments of a run, the newest `rows` of them for a table, and the picture."""

    said: str
    moments: Sequence[Moment]
    rows: Sequence[Moment]
    picture: Picture | None
    devices: bool


def timeline(run: Run) -> Timeline | None:
    """None of a run in which no round has ended."""
    moments = moments_of(run)
    if not moments:
        return None
    devices = any(moment.start is not None for moment in moments)
    return Timeline(
        _said(run, moments), moments, moments[-ROWS:], _picture(run, moments, devices), devices
    )


def moments_of(run: Run) -> list[Moment]:
    """By round and client; of a round that was done anew what came last."""
    begins, clock = {}, 0.0
    for done in run.rounds:
        begins[done.round] = None if done.sim_clock is None else clock + (done.sim_wait or 0.0)
        clock = done.sim_clock or clock
    found: dict[tuple[int, int], Moment] = {}
    for event in run.events:
        if not isinstance(event, ClientTrained | Late | Dropped | Failed):
            continue
        if event.round not in begins or event.round is None:
            continue
        key = event.round, event.client
        known = found.get(key)
        start = begins[event.round]
        if isinstance(event, ClientTrained):
            found[key] = Moment(*key, event.name, "in time", start, event)
        else:
            what = {Late: "late", Dropped: "lost", Failed: "failed"}[type(event)]
            trained = known.trained if known else None
            found[key] = Moment(*key, event.name, what, start, trained, event.reason)
    return [found[key] for key in sorted(found)]


def _said(run: Run, moments: Sequence[Moment]) -> str:
    counts = Counter(moment.what for moment in moments)
    rounds, clients = len(run.rounds), len({moment.client for moment in moments})
    up, down = sum(e.bytes_up for e in run.rounds), sum(e.bytes_down for e in run.rounds)
    moved = f"{up / 1e6:,.2f} MB went up, {down / 1e6:,.2f} MB down."
    of = f"{rounds} round{'s' if rounds != 1 else ''}"
    good = counts.pop("in time", 0)
    if good == rounds * clients:
        return f"All {clients} clients took part in all of {of}. {moved}"
    rest = "".join(f", {count} {what}" for what, count in sorted(counts.items()))
    asked = f"In {of}, {clients} clients were asked {len(moments)} times"
    return f"{asked}: {good} updates came in time{rest}. {moved}"


def _picture(run: Run, moments: Sequence[Moment], devices: bool) -> Picture | None:
    """None where every client took part in every round alike."""
    clients = sorted({moment.client for moment in moments})[:CLIENTS]
    last = max(moment.round for moment in moments)
    first = max(1, last + 1 - max(1, CELLS // len(clients)))
    shown = [m for m in moments if m.client in clients and m.round >= first]
    kinds = {(moment.what, moment.bytes) for moment in shown if moment.round > 1}
    if not devices and len(kinds) < 2 and len(shown) == len(clients) * (last + 1 - first):
        return None
    names = {moment.client: moment.name for moment in shown}
    places = {client: place for place, client in enumerate(names)}
    top = max(1, *(moment.bytes for moment in shown))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 1.0 + 0.26 * len(places)), layout="constrained")
        axes = figure.add_subplot(xlabel="simulated seconds" if devices else "round")
        closes = {done.round: done.sim_clock or 0.0 for done in run.rounds if done.round >= first}
        for end in closes.values() if devices else ():
            axes.axvline(end, color=INK, lw=0.8, ls=":")
        for moment in shown:
            place = places[moment.client]
            if devices:
                _simulated(axes, moment, place, closes[moment.round])
            else:
                _counted(axes, moment, place, top)
        axes.set_yticks(range(len(names)), [name[:LONGEST] for name in names.values()])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=not devices, min_n_ticks=1))
        svg = to_svg(figure, TITLE, of=run.label)
    less = "" if first == 1 else f" The last {last + 1 - first} of {last} rounds."
    all_of_them = len({moment.client for moment in moments})
    less += f" The first {CLIENTS} of {all_of_them} clients." if all_of_them > CLIENTS else ""
    return Picture(TITLE, (IN_TIME if devices else BY_ROUND.format(top / 1e6)) + less, svg)


def _simulated(axes: Axes, moment: Moment, place: int, closes: float) -> None:
    """Bars from the beginning of the round, or a mark in its middle where nothing came."""
    start = moment.start or 0.0
    at = start
    if moment.trained:
        height = 0.3 if moment.what == "late" else 0.66
        for part, colour in PARTS.items():
            seconds = getattr(moment.trained, part) or 0.0
            axes.barh(place, seconds, height, at, color=colour, lw=0)
            at += seconds
        if moment.what == "late":
            axes.plot(at, place, "o", ms=6, mfc="none", mec=PALETTE[1], mew=1.6)
    if moment.what in ("lost", "failed"):
        _mark(axes, moment, (start + closes) / 2, place)


def _counted(axes: Axes, moment: Moment, place: int, top: int) -> None:
    if moment.trained:
        axes.barh(
            place, 0.9, 0.8, moment.round - 0.45, color=PALETTE[0], lw=0,
            alpha=0.15 + 0.7 * moment.bytes / top,
        )  # fmt: skip
    if moment.what != "in time":
        _mark(axes, moment, moment.round, place)


def _mark(axes: Axes, moment: Moment, at: float, place: int) -> None:
    axes.plot(at, place, "x" if moment.what == "lost" else "P", ms=7, color=BAD, mew=1.8)
