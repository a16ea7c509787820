"""Pictures of one run, or of several, against rounds, bytes and simulated time."""

from collections.abc import Mapping, Sequence
from statistics import mean

from comigs.report.page.peers import of_peers
from comigs.report.page.routing import heat_maps
from comigs.report.page.run import Run
from comigs.report.plots import Picture, Series, lines, stacked
from comigs.store.events import ClientTrained, Evaluated, RoundDone

Points = list[tuple[float, float]]

AS_RECEIVED = (
    "Of the model that training starts a round with, and at the end of the final model: 0 is the "
    "base before anything was learnt. Lower is better."
)
MARKED = " The dotted line marks the models that were tested."
FOR_BYTES = "What all clients sent and fetched until then. Lower, and further left, is better."
FOR_TIME = "On the simulated devices. Lower, and further left, is better."
SPENT = "Client-level epsilon of the shared tensors at the delta of the configuration."
ALL = "all clients' traffic so far, MB"
DONE = "rounds done"
TIME = "simulated seconds"


def pictures_of(run: Run) -> list[Picture | None]:
    """Pictures of one run, one line per client."""
    trained = run.of(ClientTrained)
    names = {e.client: e.name for e in sorted(trained, key=lambda e: e.client)}
    by_client = {c: [e for e in trained if e.client == c] for c in names}

    def series(key: str) -> list[Series]:
        return [Series(names[c], _points(by_client[c], key), i) for i, c in enumerate(names)]

    final = {e.client: e.valid for e in run.of(Evaluated)}
    valid = [
        Series(names[c], _received(by_client[c], run, final.get(c)), i) for i, c in enumerate(names)
    ]
    rounds = run.rounds
    workers = (run.config.get("engine") or {}).get("workers") or 1
    wall = [e.seconds for e in rounds]
    work = [min(e.seconds, e.compute_seconds / workers) for e in rounds]
    shared = f", shared by {workers} workers" if workers > 1 else ""
    spent = [Series("epsilon", _points(rounds, "epsilon"), 0)]
    return [
        *_learnt(valid, [run] * len(valid), ""),
        lines(series("loss"), "Training loss", "Mean over a round's local steps.", "loss"),
        *_measured(trained, names),
        *heat_maps(trained),
        *of_peers([*trained, *run.of(Evaluated)]),
        lines(spent, "Privacy spent", SPENT, "epsilon"),
        stacked(
            [e.round for e in rounds],
            [("compute", work), ("overhead", [a - b for a, b in zip(wall, work, strict=True)])],
            "Time per round",
            f"Compute: the clients' training and evaluation{shared}. Overhead: all the rest.",
        ),
    ]


def compared(runs: Sequence[Run]) -> list[Picture | None]:
    """Pictures of several runs, one line per run."""
    valid = []
    for i, run in enumerate(runs):
        tested = [row["valid"] for row in run.rows]
        points = _received(run.rounds, run, mean(tested) if tested else None)
        valid.append(Series(run.label, points, i))

    def series(key: str) -> list[Series]:
        return [Series(run.label, _points(run.rounds, key), i) for i, run in enumerate(runs)]

    text = "Mean over clients. "
    loss = text + "Mean over a round's local steps."
    return [
        *_learnt(valid, runs, text),
        lines(series("loss"), "Training loss", loss, "loss"),
        lines(series("seconds"), "Time per round", "Wall clock.", "seconds"),
    ]


def _learnt(valid: Sequence[Series], runs: Sequence[Run], text: str) -> list[Picture | None]:
    """Validation perplexity, which is against rounds, against bytes and against simulated time."""
    title, unit = "Validation perplexity", "perplexity"
    by_bytes = [
        Series(s.label, _moved(s.points, run, ("bytes_up", "bytes_down"), 1e6), s.index)
        for s, run in zip(valid, runs, strict=True)
    ]
    by_time = [
        Series(s.label, _moved(s.points, run, ("sim_seconds",), 1), s.index)
        for s, run in zip(valid, runs, strict=True)
    ]
    mark = _earlier(runs[0]) if len(set(map(id, runs))) == 1 else None
    received = text + AS_RECEIVED + ("" if mark is None else MARKED)
    return [
        lines(valid, title, received, unit, log=True, mark=mark, across=DONE),
        lines(by_bytes, f"{title} for the bytes", text + FOR_BYTES, unit, log=True, across=ALL),
        lines(by_time, f"{title} for the time", text + FOR_TIME, unit, log=True, across=TIME),
    ]


def _measured(trained: Sequence[ClientTrained], names: Mapping[int, str]) -> list[Picture | None]:
    """A picture of each number that `log.metrics` asks for."""
    told = [(e.client, e.round - 1.0, key, value) for e in trained for key, value in _metrics(e)]
    places = {client: place for place, client in enumerate(names)}
    return [
        lines(
            [
                Series(name, [(at, v) for who, at, k, v in told if (who, k) == (c, key)], places[c])
                for c, name in names.items()
            ],
            key.replace("_", " ").capitalize(),
            "On validation text, of the model that training starts a round with.",
            key.replace("_", " "),
            across=DONE,
        )
        for key in dict.fromkeys(key for _, _, key, _ in told)
    ]


def _metrics(event: ClientTrained) -> list[tuple[str, float]]:
    """Those that are one number."""
    return [(key, value) for key, value in (event.metrics or {}).items() if "/" not in key]


def _points(events: Sequence[RoundDone | ClientTrained], key: str) -> Points:
    points = ((float(event.round), getattr(event, key)) for event in events)
    return [(at, value) for at, value in points if isinstance(value, int | float)]


def _received(events: Sequence[RoundDone | ClientTrained], run: Run, final: float | None) -> Points:
    """Validation perplexity by the rounds that were done before."""
    points = [(at - 1, value) for at, value in _points(events, "valid_ppl")]
    if final is None or not run.done or _earlier(run) is not None:
        return points
    return [*points, (float(run.done), final)]


def _earlier(run: Run) -> int | None:
    """The round whose models were tested, where that is not the last one."""
    return run.chosen.tested if run.chosen and run.chosen.tested < run.done else None


def _moved(
    points: Sequence[tuple[float, float]], run: Run, keys: Sequence[str], by: float
) -> Points:
    """The points, against the sum of what the rounds took; [] where they took nothing."""
    taken, total = {0: 0.0}, 0.0
    for event in run.rounds:
        total += sum(getattr(event, key) or 0 for key in keys)
        taken[event.round] = total
    if not total:
        return []
    return [(taken[int(at)] / by, value) for at, value in points if int(at) in taken]
