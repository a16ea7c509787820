"""Tokens per second: clients served together and one after the other, and beside plain PEFT.

    python -m experiments.benchmarks.serve [--quick] [--shape tiny ...] [--out FILE.json]

Eight clients (one generalist, one specialist, top 2, rank 8) over one fp32 base of random weights
each write a text of the same length behind prompts of different lengths, greedily: (one by one)
each alone in a batch, as it would be served without the others; (together) all in one batch. Then
one client alone is set beside `generate` of plain PEFT with one adapter of the same rank on the
same base, and of the base itself. Ways run in alternation, minima. Time is wall time on a GPU and
one thread's processor time on a CPU, so that other work on the machine does not count.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, PretrainedConfig

from comigs.backbone.base import load_tokenizer
from comigs.backbone.families import decoder_layers, family_of
from comigs.config.experts import ExpertsConfig
from comigs.mixture.adapters import adapter_parameters, init_adapters
from comigs.mixture.experts import add_experts
from comigs.mixture.models import bare_copy
from comigs.talk.batch import Batch, Prompt, write
from comigs.talk.sampling import Sampling
from comigs.talk.voices import Voice, Voices
from experiments.benchmarks.fuse import now
from experiments.benchmarks.record import RESULTS, prepare, save

SHAPES: dict[str, PretrainedConfig] = {
    "tiny": GPT2Config(vocab_size=2048, n_embd=128, n_layer=4, n_head=4, n_positions=256),
    "gpt2-124M": GPT2Config(),
}
CLIENTS = 8
RANK = 8


def voices_over(base: nn.Module) -> Voices:
    """Eight clients whose adapters are all drawn, so that none of them is idle."""
    models = []
    for client in range(CLIENTS):
        model = add_experts(bare_copy(base), ExpertsConfig(rank=RANK))
        init_adapters(model, 0, client)
        rng = torch.Generator().manual_seed(client)
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                if ".lora_B." in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.01)
        models.append(model)
    return Voices([Voice(model) for model in models])


def plain_peft(base: nn.Module) -> nn.Module:
    """One LoRA adapter on the same linears as an expert of ours with attention."""
    model = bare_copy(base)
    family = family_of(base.config.model_type)
    paths = [
        f"{layer.path}.{name}"
        for layer in decoder_layers(model, family)
        for name in (*layer.mixed, *layer.attention)
    ]
    config = LoraConfig(r=RANK, target_modules=paths, fan_in_fan_out=family.conv1d)
    return get_peft_model(model, config).eval()


def ways_of(base: nn.Module, tokens: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """By name: the tokens that it writes, and how."""
    tokenizer, voices, peft = load_tokenizer("comigs-tiny"), voices_over(base), plain_peft(base)
    rng = torch.Generator().manual_seed(1)
    sampling = Sampling(temperature=0, tokens=tokens)
    prompts = [
        Prompt(
            client,
            tuple(torch.randint(1, 2048, (12 + 2 * client,), generator=rng).tolist()),
            sampling,
        )
        for client in range(CLIENTS)
    ]

    def ours(some: Sequence[Prompt]) -> None:
        for _ in write(Batch(voices, tokenizer), some):
            pass

    def theirs(model: nn.Module) -> None:
        ids = torch.tensor([prompts[0].ids])
        how = {"do_sample": False, "max_new_tokens": tokens}
        with torch.inference_mode():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)

    return {
        "one by one": (CLIENTS * tokens, lambda: [ours([each]) for each in prompts]),
        "together": (CLIENTS * tokens, lambda: ours(prompts)),
        "one client": (tokens, lambda: ours(prompts[:1])),
        "plain PEFT": (tokens, lambda: theirs(peft)),
        "base": (tokens, lambda: theirs(base)),
    }


def measure(shape: str, tokens: int, repeats: int) -> dict:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.float32)
    base.requires_grad_(False).eval()
    base.generation_config.eos_token_id = None  # all write as many tokens as they are asked for
    ways = ways_of(base, tokens)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, (_, run) in ways.items():
            begin = now()
            run()
            if turn:  # the first one warms up
                seconds[way].append(now() - begin)
    rates = {way: written / min(seconds[way]) for way, (written, _) in ways.items()}
    return {
        "shape": shape,
        "tokens": tokens,
        "tokens_per_second": rates,
        "together/one by one": rates["together"] / rates["one by one"],
        "one client/plain PEFT": rates["one client"] / rates["plain PEFT"],
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat of few tokens")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--tokens", type=int, default=48, help="of each text")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    tokens, repeats = (4, 1) if args.quick else (args.tokens, args.repeats)
    rows = [measure(shape, tokens, repeats) for shape in args.shape or SHAPES]
    ways = list(rows[0]["tokens_per_second"])
    table = Table("tokens per second", *(row["shape"] for row in rows), box=None)
    for way in ways:
        table.add_row(way, *(f"{row['tokens_per_second'][way]:.0f}" for row in rows))
    for ratio in ("together/one by one", "one client/plain PEFT"):
        table.add_row(ratio, *(f"{row[ratio]:.2f}" for row in rows))
    Console().print(table)
    save(args.out, rows=rows)


if __name__ == "__main__":
    main()
