"""Where the experts of finished runs specialise: what the choice of an expert tells, in bits.

    python -m experiments.benchmarks.choices RUN... [--tokens 512] [--out FILE.json]

Every client's model reads the test text of every client. An expert is chosen where its gate is the
greatest. `client`: of each model on its own text, whose model it is; `topic`: in one model, whose
text it reads; `token`: in one model on all texts, the class of the token. Means over layers, and
for the last two over models. With one expert of each kind no choice tells more than 1 bit.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from comigs.backbone.base import load_base, load_tokenizer
from comigs.evaluation.choices import CLASSES, mutual_information, pair_counts, token_class
from comigs.evaluation.trace import passages, pieces, trace
from comigs.federation.clients import data_of
from comigs.use.generate import open_client
from experiments.benchmarks.record import prepare, save


def told(folder: Path, tokens: int) -> dict[str, float]:
    """Bits of client, topic and token class that a run's choices tell."""
    first, _ = open_client(folder, 0)
    count = len(first.run.names)
    experts = max(client.experts.total for client in first.run.clients())
    config = first.config
    base = load_base(config.model.name, first.dtype, first.compute)
    tokenizer = load_tokenizer(config.model.name)
    texts = [
        passages(
            next(iter(data_of(first.run.client(i)).tests.values())), tokens, config.data.seq_len
        )
        for i in range(count)
    ]
    own, topic, token = [], [], []  # tables of each model and layer
    for number in range(count):
        _, model = open_client(folder, number)
        seen = [trace(model, base, text) for text in texts]
        chosen = [each.gates.argmax(-1) for each in seen]  # layers x T
        classes = [
            torch.tensor([token_class(piece) for piece in pieces(tokenizer, each.ids.tolist())])
            for each in seen
        ]
        own.append([torch.bincount(layer, minlength=experts) for layer in chosen[number]])
        for layer in range(len(chosen[0])):
            rows = [torch.bincount(each[layer], minlength=experts) for each in chosen]
            topic.append(mutual_information(torch.stack(rows)))
            picks: Tensor = torch.cat([each[layer] for each in chosen])
            table = pair_counts(torch.cat(classes), picks, (len(CLASSES), experts))
            token.append(mutual_information(table))
    client = [mutual_information(torch.stack(rows)) for rows in zip(*own, strict=True)]
    return {"client": mean(client), "topic": mean(topic), "token": mean(token)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    prepare()
    found = {str(folder): told(folder, arguments.tokens) for folder in arguments.runs}
    table = Table("run", "client", "topic", "token", title="bits that a choice tells")
    for name, bits in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in bits.values()))
    Console(width=140).print(table)
    if arguments.out:
        save(arguments.out, tokens=arguments.tokens, bits=found)


if __name__ == "__main__":
    main()
