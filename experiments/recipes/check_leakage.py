"""Look for held-out text in training text; the exit status is 1 when there is any.

    python -m experiments.recipes.check_leakage [FEDERATION ...] [--base BUILD/base.txt]

Without arguments it looks at every federation in `comigs/data/bundled`. `--base` adds the base
model's training text (written by `bundle_data.py`) to what may hold no held-out window.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from comigs.data.leakage import WIDTH, Leak, check_federation

BUNDLED = Path(__file__).parents[2] / "comigs" / "data" / "bundled"


def describe(leak: Leak) -> str:
    """One line about a leak."""
    return f"  {leak.heldout} in {leak.found_in}: {leak.shared} shared, first {leak.example!r}"


def main() -> int:
    """Check, print one line per federation and one per leak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federations", nargs="*", type=Path)
    parser.add_argument("--base", type=Path, help="training text of the base model")
    args = parser.parse_args()
    folders = args.federations or sorted(p.parent for p in BUNDLED.glob("*/federation.json"))
    against = "the training splits"
    if args.base:
        digest = hashlib.sha256(args.base.read_bytes()).hexdigest()
        against += f" and {args.base.name} (sha256 {digest})"
    print(f"{WIDTH}-character windows of every validation and test split against {against}:")
    total = 0
    for folder in folders:
        leaks = check_federation(folder, args.base)
        total += len(leaks)
        print(f"{folder.name}: {f'{len(leaks)} leaks' if leaks else 'clean'}")
        print(*map(describe, leaks), sep="\n", end="\n" if leaks else "")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
