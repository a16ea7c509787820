"""Cut the bundled federations and the base model's training text out of a folder of sources.

    python -m experiments.recipes.bundle_data SOURCE --base-out BUILD

Writes `comigs/data/bundled/<federation>/` and, into BUILD, `base.txt` (training text of
comigs-tiny) and `base_heldout.txt` (English it has not seen). The same sources give the same
bytes. A client's splits are consecutive stretches of its source: a pool for training, then
validation, then test. What the pool or the base text shares with any held-out split is dropped
from the pool or the base text. Refuses to write when the check still finds a leak.
"""

import argparse
import hashlib
import json
import lzma
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from comigs.data.leakage import check_federation, paragraphs, read_split, without_shared
from experiments.recipes.bundle_sources import BASE, BASE_HELDOUT, FEDERATIONS, Client, is_foreign

SPLITS = ("train", "valid", "test")


def units(path: Path, kind: str) -> list[str]:
    """Paragraphs of a source, each once, its last (cut off) one left out.

    Code keeps its blank lines: a unit is a block with one empty line after it.
    """
    parts = paragraphs(path.read_text(encoding="utf-8"), kind)[:-1]
    return list(dict.fromkeys(part + "\n" if kind == "code" else part for part in parts))


def size(part: str) -> int:
    """Bytes of a unit and its line end in UTF-8."""
    return len(part.encode()) + 1


def first(parts: Iterable[str], limit: int) -> list[str]:
    """The longest prefix of `parts` of at most `limit` bytes."""
    kept, total = [], 0
    for part in parts:
        total += size(part)
        if total > limit:
            break
        kept.append(part)
    return kept


def text_of(parts: Iterable[str]) -> str:
    """Units joined to a text, one line end after each."""
    return "".join(part + "\n" for part in parts)


def cut(source: Path, client: Client) -> dict[str, list[str]]:
    """Pool, validation and test units of one client; the last two share no window."""
    parts = units(source / client.source, client.kind)
    if client.anchors:
        at, middle, end = (
            next(i for i, part in enumerate(parts) if part.startswith(anchor))
            for anchor in client.anchors
        )
        pool, valid, test = parts[:at], parts[at:middle], parts[middle:end]
    else:
        begin, at = int(len(parts) * client.begin), int(len(parts) * client.heldout_at)
        pool, valid = parts[begin:at], first(parts[at:], client.heldout_bytes)
        test = parts[at + len(valid) :]
    test = first(without_shared(test, [text_of(valid)]), client.heldout_bytes)
    return {"train": pool, "valid": valid, "test": test}


def cut_federation(source: Path, clients: Iterable[Client]) -> dict[str, dict[str, list[str]]]:
    """Splits of every client, training pools cleared of all held-out text and cut to size."""
    cuts = {client.name: cut(source, client) for client in clients}
    heldout = [text_of(splits[s]) for splits in cuts.values() for s in ("valid", "test")]
    for client in clients:
        splits = cuts[client.name]
        taken = {*splits["valid"], *splits["test"]}
        pool = without_shared([part for part in splits["train"] if part not in taken], heldout)
        splits["train"] = first(pool, client.train_bytes)
    return cuts


def base_texts(source: Path, bundled: Iterable[str], heldout: list[str]) -> tuple[str, str]:
    """Training text of the base model and a held-out stretch of English."""
    path, begin, limit = BASE_HELDOUT
    taken = set(bundled)
    fresh = [part for part in units(source / path, "text") if part not in taken]
    unseen = first(fresh[int(len(fresh) * begin) :], limit)
    taken |= set(unseen)
    texts = []
    for path, kind, limit in BASE:
        parts = units(source / path, kind)[1:]
        parts = [part for part in parts if part not in taken and not is_foreign(part, kind)]
        taken |= set(parts)
        kept = first(without_shared(parts, [*heldout, text_of(unseen)]), limit)
        print(f"base: {sum(map(size, kept)):,} bytes of {path}")
        texts += kept
    return text_of(without_shared(texts, [*heldout, text_of(unseen)])), text_of(unseen)


def write(folder: Path, name: str, title: str, clients: Iterable[Client], cuts: dict) -> None:
    """One federation folder: `federation.json` and xz files."""
    folder.mkdir(parents=True)
    info = {"name": name, "title": title, "clients": [client.description() for client in clients]}
    described = json.dumps(info, indent=2) + "\n"
    (folder / "federation.json").write_text(described, encoding="utf-8")
    for client, splits in cuts.items():
        (folder / client).mkdir()
        for split, parts in splits.items():
            packed = lzma.compress(text_of(parts).encode(), preset=9 | lzma.PRESET_EXTREME)
            (folder / client / f"{split}.txt.xz").write_bytes(packed)


def main() -> None:
    """Cut, check, and only then replace what is bundled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--base-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("comigs/data/bundled"))
    args = parser.parse_args()
    args.base_out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        bundled, heldout = [], []
        for name, (title, clients) in FEDERATIONS.items():
            cuts = cut_federation(args.source, clients)
            write(Path(scratch) / name, name, title, clients, cuts)
            for splits in cuts.values():
                bundled += [part for parts in splits.values() for part in parts]
                heldout += [text_of(splits[split]) for split in ("valid", "test")]
        base, unseen = base_texts(args.source, bundled, heldout)
        (args.base_out / "base.txt").write_text(base, encoding="utf-8")
        (args.base_out / "base_heldout.txt").write_text(unseen, encoding="utf-8")
        for name, (_, clients) in FEDERATIONS.items():
            leaks = check_federation(Path(scratch) / name, args.base_out / "base.txt")
            if leaks:
                raise SystemExit(f"{name}: leakage, nothing written: {leaks}")
            shutil.rmtree(args.out / name, ignore_errors=True)
            shutil.copytree(Path(scratch) / name, args.out / name)
            for client in clients:
                texts = (read_split(args.out / name, client.name, split) for split in SPLITS)
                print(name, client.name, *(f"{len(text):,}" for text in texts), "characters")
    print(f"base.txt: {len(base):,} characters, sha256 {hashlib.sha256(base.encode()).hexdigest()}")
    print(f"bundled: {sum(f.stat().st_size for f in args.out.rglob('*.xz')):,} bytes")


if __name__ == "__main__":
    main()
