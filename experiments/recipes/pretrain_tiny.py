"""Train comigs-tiny, the small GPT-2-style model that comes with comigs.

    python -m experiments.recipes.bundle_data SOURCE --base-out BUILD
    python -m experiments.recipes.pretrain_tiny BUILD

Reads `base.txt` and `base_heldout.txt` from BUILD, trains a byte-level BPE tokenizer and then a
model on a fixed number of tokens, and writes both, the loss curve and `training.json` (what the
model card is made of, see `model_card.py`). Same text, seed and threads: same run.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from experiments.recipes.tiny_tokenizer import token_stream, train_tokenizer

LENGTH = 128  # tokens per sequence


def batches(stream: Tensor, rows: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield `steps` batches [rows, LENGTH + 1]; each pass cuts the stream at another offset."""
    generator = torch.Generator().manual_seed(seed)
    queue = torch.empty(0, dtype=torch.int64)
    offsets = torch.arange(LENGTH + 1)
    for _ in range(steps):
        if len(queue) < rows:
            start = int(torch.randint(LENGTH, (1,), generator=generator))
            starts = torch.arange(start, len(stream) - LENGTH, LENGTH)
            queue = torch.cat([queue, starts[torch.randperm(len(starts), generator=generator)]])
        chosen, queue = queue[:rows], queue[rows:]
        yield stream[chosen[:, None] + offsets]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    fraction = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))


@torch.no_grad()
def bits_per_char(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """Bits per character of `text`, cut into sequences of LENGTH tokens with END before each."""
    ids = tokenizer.backend_tokenizer.encode(text).ids
    rows = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    start = torch.full((len(rows), 1), tokenizer.eos_token_id)
    inputs, nats = torch.cat([start, rows[:, :-1]], 1), 0.0
    for x, y in zip(inputs.split(64), rows.split(64), strict=True):
        nats += cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    return nats / math.log(2) / len(tokenizer.decode(rows.flatten()))


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (fp16), configuration and tokenizer, readable by everybody."""
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    # a plain from_pretrained then gives float32, and older transformers know the tokenizer class
    amend(out / "config.json", dtype="float32")
    amend(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    for path in out.iterdir():
        path.chmod(0o644)


def amend(path: Path, **changes: str) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2) + "\n")


def main() -> None:
    """Train and write everything; prints loss and tokens/s as it goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--out", type=Path, default=Path("comigs/models/comigs-tiny"))
    parser.add_argument("--tokens", type=int, default=12_000_000)
    parser.add_argument("--rows", type=int, default=16, help="sequences per step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    text = (args.build / "base.txt").read_text(encoding="utf-8")
    unseen = (args.build / "base_heldout.txt").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(text, LENGTH)
    stream = token_stream(tokenizer, text, args.seed)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4,
        activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), fused=True)
    steps = args.tokens // (args.rows * LENGTH)
    print(f"{model.num_parameters():,} parameters, {len(stream):,} tokens of text, {steps} steps")

    curve, losses, began = ["step,tokens,train_loss,heldout_bits_per_char"], [], time.perf_counter()
    for step, batch in enumerate(batches(stream, args.rows, steps, args.seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, args.lr, warmup=steps // 25)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        done = step + 1
        if done % 250 == 0 or done == steps:
            bits = bits_per_char(model.eval(), tokenizer, unseen[:50_000])
            tokens = done * args.rows * LENGTH
            curve.append(f"{done},{tokens},{sum(losses) / len(losses):.4f},{bits:.4f}")
            speed = tokens / (time.perf_counter() - began)
            print(f"{curve[-1]}  {speed:,.0f} tokens/s", flush=True)
            losses.clear()
            if done % 500 == 0 or done == steps:
                save(model, tokenizer, args.out)
            model.train()
    (args.out / "loss.csv").write_text("\n".join(curve) + "\n")
    facts = {
        **{key: getattr(args, key) for key in ("tokens", "rows", "lr", "seed", "threads")},
        "steps": steps, "parameters": model.num_parameters(), "text_tokens": len(stream),
        "text_characters": len(text), "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "seconds": round(time.perf_counter() - began),
        "heldout_bits_per_char": bits_per_char(model.eval(), tokenizer, unseen),
    }  # fmt: skip
    (args.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
