"""Write the model card (README.md, loss.svg) of comigs-tiny from what its training recorded.

    python -m experiments.recipes.model_card BUILD

BUILD is the folder with `base.txt`. Evaluates the model on the validation split of every bundled
client and repeats the leakage check against the base text; stops if there is a leak.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from comigs.data.leakage import check_federation, read_split
from experiments.recipes.pretrain_tiny import LENGTH, bits_per_char

CARD = Path(__file__).with_name("model_card.md")
FEDERATIONS = ("multilingual", "topics", "domains")


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of `loss.csv`."""
    header, *lines = path.read_text().splitlines()
    return [
        dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines
    ]


def loss_svg(curve: list[dict[str, float]], width: int = 560, height: int = 260) -> str:
    """The held-out bits per character over tokens as an SVG picture."""
    xs, ys = [row["tokens"] for row in curve], [row["heldout_bits_per_char"] for row in curve]
    low, high = math.floor(min(ys) * 5) / 5, math.ceil(max(ys) * 5) / 5
    left, top, right, bottom = 50, 20, width - 20, height - 40

    def place(x: float, y: float) -> str:
        across = left + (right - left) * x / max(xs)
        return f"{across:.1f},{bottom - (bottom - top) * (y - low) / (high - low):.1f}"

    parts = []
    for i in range(round((high - low) * 5) + 1):
        y = low + i / 5
        (x1, at), x2 = place(0, y).split(","), right
        parts.append(f'<path d="M{x1},{at}H{x2}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{at}" text-anchor="end" dy="4">{y:.1f}</text>')
    for millions in range(0, int(max(xs) / 1e6) + 1, 2):
        x = place(millions * 1e6, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{millions}</text>')
    line = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">million tokens</text>')
    parts.append(f'<text x="{left}" y="12">bits per character, held-out English</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def evaluate(folder: Path, bundled: Path) -> list[str]:
    """A table row per bundled client: bits per character and perplexity per token."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for name in FEDERATIONS:
        info = json.loads((bundled / name / "federation.json").read_text(encoding="utf-8"))
        for client in info["clients"]:
            text = read_split(bundled / name, client["name"], "valid")
            count = len(tokenizer.backend_tokenizer.encode(text).ids)
            bits = bits_per_char(model, tokenizer, text)
            perplexity = 2 ** (bits * len(text) / count)
            per_token = len(text) / count
            row = f"| {name} | {client['name']} | {bits:.2f} | {perplexity:.1f} | {per_token:.2f} |"
            print(row)
            rows.append(row)
    return rows


def main() -> None:
    """Check, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--model", type=Path, default=Path("comigs/models/comigs-tiny"))
    parser.add_argument("--bundled", type=Path, default=Path("comigs/data/bundled"))
    args = parser.parse_args()
    facts = json.loads((args.model / "training.json").read_text())
    base = args.build / "base.txt"
    if hashlib.sha256(base.read_bytes()).hexdigest() != facts["text_sha256"]:
        raise SystemExit(f"{base} is not the text this model was trained on")
    leaks = [leak for name in FEDERATIONS for leak in check_federation(args.bundled / name, base)]
    if leaks:
        raise SystemExit(f"held-out text in training text: {leaks}")
    curve = read_curve(args.model / "loss.csv")
    step = max(1, len(curve) // 8)
    shown = [*curve[:-1:step], curve[-1]]
    values = facts | {
        "length": LENGTH,
        "minutes": round(facts["seconds"] / 60, 1),
        "speed": facts["tokens"] // facts["seconds"],
        "heldout": f"{facts['heldout_bits_per_char']:.3f}",
        "curve": "\n".join(
            f"| {row['step']:.0f} | {row['tokens'] / 1e6:.2f} | {row['train_loss']:.3f} "
            f"| {row['heldout_bits_per_char']:.3f} |"
            for row in shown
        ),
        "clients": "\n".join(evaluate(args.model, args.bundled)),
    }
    text = CARD.read_text(encoding="utf-8").format_map(values)
    (args.model / "README.md").write_text(text, encoding="utf-8")
    (args.model / "loss.svg").write_text(loss_svg(curve))
    for path in args.model.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    main()
