"""Pictures of what routers did, layer by layer over the rounds, where `log.metrics` has routing."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from comigs.report.plots import PALETTE, STYLE, Picture, to_svg
from comigs.store.events import ClientTrained

MOST = 8  # clients
LONGEST = 20  # characters of a name
PIXELS = 8  # of a cell's sides: what shows it blurs its edges at most
GREY = (0.5, 0.5, 0.5, 0.3)
WHEN = "On validation text, of the model that a round starts with; grey where nothing was measured."
WHOLE = ("generalist_share", "entropy")  # of a layer, not of one expert
Values = Mapping[tuple[int, int], float]  # by (rounds done, layer)


def heat_maps(trained: Sequence[ClientTrained]) -> list[Picture | None]:
    """Generalists' share and entropy, and the load of each expert; [] without the metric."""
    clients = sorted({(e.client, e.name) for e in trained})[:MOST]
    found: dict[str, dict[int, dict[tuple[int, int], float]]] = {}
    for event in trained:
        for key, value in (event.metrics or {}).items():
            metric, _, rest = key.partition("/")
            layer, _, what = rest.partition("/")
            if metric == "routing" and layer.isdecimal() and what and math.isfinite(value):
                values = found.setdefault(what, {}).setdefault(event.client, {})
                values[event.round - 1, int(layer)] = value
    names = dict(clients)
    if (
        sum(what.startswith("load/") for what in found) < 3
    ):  # of two the generalists' share says all
        found = {what: values for what, values in found.items() if "/" not in what}
    pictures = []
    for what in sorted(filter(_known, found), key=_order):
        shown = {names[c]: values for c, values in found[what].items() if c in names}
        pictures.append(_draw(shown, *_told(what)) if shown else None)
    return [each for each in pictures if each]


def _known(what: str) -> bool:
    return what in WHOLE or what.startswith("load/")


def _order(what: str) -> tuple[int, str]:
    return (WHOLE.index(what) if what in WHOLE else len(WHOLE), what)


def _told(what: str) -> tuple[str, str]:
    """Title and caption."""
    if what == "generalist_share":
        return "Generalists' share of the gates", f"Pale: 0 %, strong: 100 %. {WHEN}"
    if what == "entropy":
        return "Entropy of the router", f"Pale: it is sure of one expert, strong: it wavers. {WHEN}"
    name = what.removeprefix("load/").replace("_", " ")
    return f"Load of {name}", f"Its share of the gates; pale: 0 %, strong: 100 %. {WHEN}"


def _cell(value: float | None, top: float) -> tuple[float, ...]:
    return GREY if value is None else (*to_rgb(PALETTE[0]), value / top)


def _draw(clients: Mapping[str, Values], title: str, caption: str) -> Picture | None:
    """A panel for each client: rounds to the right, layers upwards."""
    seen = {at for values in clients.values() for at, _ in values}
    rounds = range(min(seen), max(seen) + 1)
    layers = sorted({layer for values in clients.values() for _, layer in values})
    if len(seen) < 2:
        return None
    top = max(1.0, *(value for values in clients.values() for value in values.values()))
    wide = min(4, len(clients))
    deep = -(-len(clients) // wide)
    with matplotlib.rc_context(STYLE):
        size = (5.6, deep * (0.75 + 0.11 * max(6, min(24, len(layers)))))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(deep, wide, sharex=True, sharey=True, squeeze=False).flat
        for axes, (name, values) in zip(panels, clients.items(), strict=False):
            cells = [[_cell(values.get((at, layer)), top) for at in rounds] for layer in layers]
            sharp = np.repeat(np.repeat(cells, PIXELS, 0), PIXELS, 1)
            extent = (rounds[0] - 0.5, rounds[-1] + 0.5, layers[0] - 0.5, layers[-1] + 0.5)
            axes.imshow(sharp, origin="lower", aspect="auto", interpolation="none", extent=extent)
            axes.set_title(name[:LONGEST], fontsize="small", loc="left")
            axes.grid(False)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        for axes in figure.axes[len(clients) :]:
            axes.remove()
        figure.supxlabel("rounds done", fontsize="medium")
        figure.supylabel("layer", fontsize="medium")
        return Picture(title, caption, to_svg(figure, title), heat=True)
