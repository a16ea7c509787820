"""Clients per minute and peak memory: one after the other, fused, and with a base each.

    python -m experiments.benchmarks.fuse [--quick] [--clients 1 --clients 4 ...] [--out FILE.json]

Each of n clients does some local steps of B x 128 tokens from its own adapters (one generalist, one
specialist, top 2, rank 8), with one router step: (serial) one model over one base, switching the
clients' adapters; (fused) n clients in one pass; (own base) a model with a base of its own for
each. bf16 base, random weights. Ways run in alternation, minima. Time is wall time on a GPU and one
thread's processor time on a CPU, so that other work on the machine does not count; memory is what
the clients hold (base, adapters) and the peak of live tensor bytes in a step.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PretrainedConfig, PreTrainedModel

from comigs.backbone.faster import prefer_fast_attention
from comigs.config.experts import ExpertsConfig, RouterConfig
from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.federation.run import Run, resolve
from comigs.mixture.adapters import (
    adapter_parameters,
    adapter_tensors,
    init_adapters,
    load_adapter_tensors,
)
from comigs.mixture.experts import add_experts
from comigs.mixture.models import bare_copy
from comigs.training.bilevel import train_group
from comigs.training.trainee import Trainee
from experiments.benchmarks.peak import peak_bytes
from experiments.benchmarks.record import RESULTS, prepare, save

SHAPES: dict[str, PretrainedConfig] = {
    "tiny": GPT2Config(vocab_size=2048, n_embd=128, n_layer=4, n_head=4, n_positions=128),
    "gpt2-124M": GPT2Config(),
}
WAYS = ("serial", "fused", "own base")


class Clients:
    """n clients with text and adapters of their own, and the models that their way needs."""

    def __init__(self, way: str, base: PreTrainedModel, n: int, run: Run) -> None:
        self.way, self.run = way, run
        bases = [copy.deepcopy(base) for _ in range(n)] if way == "own base" else [base]
        count = 1 if way == "serial" else n
        self.models = [
            add_experts(bare_copy(bases[i % len(bases)]), ExpertsConfig()) for i in range(count)
        ]
        vocabulary, rng = base.config.vocab_size, torch.Generator().manual_seed(0)
        self.texts = [torch.randint(vocabulary, (4096,), generator=rng) for _ in range(n)]
        self.kept = []
        for client in range(n):
            init_adapters(self.models[client % count], run.config.seed, client)
            self.kept.append(adapter_tensors(self.models[client % count]))
        weights = sum(t.nbytes for t in base.parameters()) * len(bases)
        self.held = weights + sum(p.nbytes for p in adapter_parameters(self.models[0]).values()) * n

    def train(self) -> None:
        """One round of every client from where it stands."""
        for group in self._groups():
            for client in group:
                load_adapter_tensors(self._model(client), self.kept[client])
            self._steps(group, self.run.config.local_steps)
            for client in group:
                self.kept[client] = adapter_tensors(self._model(client))

    def step(self) -> None:
        """One local step of the first client, or of those in its pass: all are alike."""
        self._steps(self._groups()[0], 1)

    def _groups(self) -> list[list[int]]:
        everyone = list(range(len(self.texts)))
        return [everyone] if self.way == "fused" else [[client] for client in everyone]

    def _steps(self, group: list[int], steps: int) -> None:
        trainees = [self._trainee(client) for client in group]
        train_group(trainees, round_number=1, steps=steps)

    def _model(self, client: int) -> PeftModel:
        return self.models[client % len(self.models)]

    def _trainee(self, client: int) -> Trainee:
        text: Tensor = self.texts[client]
        return Trainee(self.run.client(client), self._model(client), text, text, {}, 0)


def now() -> float:
    """Seconds, to take differences of."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(shape: str, clients: int, batch: int, steps: int, repeats: int, length: int) -> dict:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.bfloat16)
    base.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    prefer_fast_attention(base, "bfloat16")
    config = RunConfig(
        data=DataConfig(seq_len=length),
        router=RouterConfig(every=steps, steps=1),
        local_steps=steps,
        batch_size=batch,
    )
    memory, seconds = {}, {way: [] for way in WAYS}
    ways = {}
    for way in WAYS:
        ways[way] = Clients(way, base, clients, resolve(config))
        ways[way].train()
        memory[way] = ways[way].held + peak_bytes(ways[way].step)
    for _ in range(repeats):
        for way in WAYS:
            begin = now()
            ways[way].train()
            seconds[way].append(now() - begin)
    best = {way: min(times) for way, times in seconds.items()}
    return {
        "shape": shape,
        "clients": clients,
        "batch": batch,
        "steps": steps,
        "seconds": best,
        "clients_per_minute": {way: 60 * clients / value for way, value in best.items()},
        "peak_bytes": memory,
        "serial/fused": best["serial"] / best["fused"],
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat of short sequences")
    parser.add_argument("--out", type=Path, default=RESULTS / "fuse.json")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--clients", type=int, action="append", help="1 to 64; default 1, 4, 16")
    parser.add_argument("--batch", type=int, action="append", help="sequences; default 1, 4")
    parser.add_argument("--steps", type=int, default=2, help="local steps")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    repeats, length = (1, 16) if args.quick else (args.repeats, 128)
    rows = [
        measure(shape, clients, batch, args.steps, repeats, length)
        for shape in args.shape or SHAPES
        for batch in args.batch or (1, 4)
        for clients in args.clients or (1, 4, 16)
    ]
    table = Table("shape", "B", "clients", "clients per minute", "MB", "serial/fused", box=None)
    table.title = "serial | fused | own base"
    for row in rows:
        rates = " | ".join(f"{row['clients_per_minute'][way]:.0f}" for way in WAYS)
        memory = " | ".join(f"{row['peak_bytes'][way] / 1e6:.0f}" for way in WAYS)
        ratio = f"{row['serial/fused']:.2f}"
        table.add_row(row["shape"], str(row["batch"]), str(row["clients"]), rates, memory, ratio)
    Console().print(table)
    save(args.out, rows=rows)


if __name__ == "__main__":
    main()
