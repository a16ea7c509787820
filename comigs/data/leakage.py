"""Exact search for text shared between held-out splits and training text.

A *window* is `width` consecutive characters (code points, line ends included) of a text. Every
position is looked at. Windows are compared through 64-bit polynomial hashes, so nothing shared
can be missed, and what the hashes find is compared again as text, so nothing is found in error.
"""

import json
import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDTH = 50
HELDOUT = ("valid", "test")
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Leak:
    """Windows or paragraphs of one held-out split that occur in another text.

    Attributes:
        heldout: `client/split` whose text was found elsewhere.
        found_in: `client/split` of the text they were found in, or `base`.
        shared: number of distinct windows, or else of paragraphs, shared.
        example: the first of them.
    """

    heldout: str
    found_in: str
    shared: int
    example: str


def window_hashes(text: str, width: int = WIDTH) -> Hashes:
    """Hash of every window of `text`: shape [len(text) - width + 1], empty for a shorter text."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    count = len(codes) - width + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    base, hashes = np.uint64(0x9E3779B97F4A7C15), np.zeros(count, dtype=np.uint64)
    for offset in range(width):
        hashes *= base  # modulo 2**64
        hashes += codes[offset : offset + count]
    hashes ^= hashes >> np.uint64(29)
    return hashes


def contained(hashes: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    """Which of `hashes` [n] occur in `ordered` [m], sorted ascending: bool [n]."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    places = np.searchsorted(ordered, hashes)
    return ordered[np.minimum(places, len(ordered) - 1)] == hashes


def shared_windows(heldout: str, others: Iterable[str], width: int = WIDTH) -> list[str]:
    """Distinct windows of `heldout` that occur in any of `others`, in the order of `heldout`."""
    hashes = window_hashes(heldout, width)
    seen: set[str] = set()
    ordered, found = np.sort(hashes), [np.empty(0, dtype=np.uint64)]
    for other in others:
        theirs = window_hashes(other, width)
        places = np.flatnonzero(contained(theirs, ordered))
        seen.update(other[place : place + width] for place in places.tolist())
        found.append(theirs[places])
    places = np.flatnonzero(contained(hashes, np.sort(np.concatenate(found))))
    windows = dict.fromkeys(heldout[place : place + width] for place in places.tolist())
    return [window for window in windows if window in seen]


def without_shared(parts: Sequence[str], heldout: Iterable[str], width: int = WIDTH) -> list[str]:
    """`parts` (paragraphs) less those that carry a window of any `heldout` text.

    A dropped paragraph makes new neighbours and so new windows across the line end: the search
    is repeated until nothing is shared. A window over several short paragraphs costs only the
    one that holds its middle character.
    """
    none = np.empty(0, dtype=np.uint64)
    ordered = np.sort(np.concatenate([none, *(window_hashes(text, width) for text in heldout)]))
    kept = list(parts)
    while kept:
        hits = np.flatnonzero(contained(window_hashes("\n".join(kept) + "\n", width), ordered))
        if not len(hits):
            break
        ends = np.cumsum([len(part) + 1 for part in kept])
        drop = set(np.searchsorted(ends, hits + width // 2, side="right").tolist())
        kept = [part for i, part in enumerate(kept) if i not in drop]
    return kept


def paragraphs(text: str, kind: str = "text") -> list[str]:
    """Paragraphs of a text: its lines, or for `kind="code"` its blocks between blank lines."""
    parts = text.split("\n\n" if kind == "code" else "\n")
    return [part.strip("\n") for part in parts if part.strip()]


def read_split(folder: Path, client: str, split: str) -> str:
    """Text of `folder/client/split.txt.xz`."""
    return lzma.decompress((folder / client / f"{split}.txt.xz").read_bytes()).decode("utf-8")


def check_federation(folder: Path, base_text: Path | None = None) -> list[Leak]:
    """Every leak of a bundled federation; an empty list says there is none.

    A client's validation and test split may share no window with any client's training split,
    with the base model's training text, or with each other, and no paragraph with the other
    splits of the same client.

    Args:
        folder: holds `federation.json` and one folder per client.
        base_text: UTF-8 file with the base model's training text, if it is at hand.
    """
    clients = json.loads((folder / "federation.json").read_text(encoding="utf-8"))["clients"]
    kinds = {client["name"]: client.get("kind", "text") for client in clients}
    splits = {f"{c}/{s}": read_split(folder, c, s) for c in kinds for s in ("train", *HELDOUT)}
    others = {name: text for name, text in splits.items() if name.endswith("/train")}
    if base_text is not None:
        others["base"] = base_text.read_text(encoding="utf-8")
    ordered = {name: np.sort(window_hashes(text)) for name, text in others.items()}
    leaks = []
    for client, kind in kinds.items():
        valid, test = f"{client}/valid", f"{client}/test"
        for heldout in (valid, test):
            hashes = window_hashes(splits[heldout])
            for name, index in ordered.items():
                if contained(hashes, index).any():
                    shared = shared_windows(splits[heldout], [others[name]])
                    leaks += _leaks(heldout, name, shared)
        leaks += _leaks(valid, test, shared_windows(splits[valid], [splits[test]]))
        for one, two in ((valid, f"{client}/train"), (test, f"{client}/train"), (valid, test)):
            theirs = set(paragraphs(splits[two], kind))
            shared = [part for part in paragraphs(splits[one], kind) if part in theirs]
            leaks += _leaks(one, two, shared)
    return leaks


def _leaks(heldout: str, found_in: str, shared: Sequence[str]) -> list[Leak]:
    return [Leak(heldout, found_in, len(shared), shared[0])] if shared else []
