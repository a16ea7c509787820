"""How far the router's first-order gradient is from the one it stands for, by nu and inner steps.

    python -m experiments.benchmarks.firstorder [--quick] [--out FILE.json]

One client of comigs-tiny whose experts have trained for a while. The truth is the derivative of the
validation loss after the inner steps, along random directions of the routers, by central
differences. An error is the norm of the difference over the norm of the truth.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from comigs.config.load import load_config
from comigs.config.settings import ClientConfig
from comigs.evaluation.perplexity import token_loss
from comigs.federation.clients import data_of, model_of
from comigs.federation.run import Client, resolve
from comigs.mixture.adapters import init_adapters
from comigs.mixture.experts import balance_loss
from comigs.training.bilevel import train_locally
from comigs.training.hypergradient import hypergradient
from comigs.training.optimizers.adamw import rates as adam_rates
from comigs.training.trainee import Learner, Trainee
from experiments.benchmarks.record import RESULTS, prepare, save

NUS = (1.0, 0.5, 0.1, 0.03, 0.01, 0.003, 0.001)
INNER = (1, 3, 10)
EPS = 1e-2  # of the central differences; routers start at +-0.09


def main() -> None:
    """Measure, print a table, write JSON."""
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part of it")
    parser.add_argument("--out", type=Path, default=RESULTS / "firstorder.json")
    args = parser.parse_args()
    config = load_config(None, ["batch_size=8", "router.every=30", "router.lr=0.05"])
    errors = measure(
        resolve(config).client(0),
        steps=4 if args.quick else 60,
        directions=2 if args.quick else 12,
        nus=NUS[1:5:3] if args.quick else NUS,
    )
    table = Table(
        "inner steps", "alternating", *(f"nu {nu:g}" for nu in errors["1"] if nu), box=None
    )
    for inner, row in errors.items():
        table.add_row(inner, *(f"{100 * value:.1f} %" for value in row.values()))
    Console().print(table)
    save(args.out, errors=errors)


def measure(
    client: Client, steps: int, directions: int, nus: tuple[float, ...]
) -> dict[str, dict[float, float]]:
    """Relative errors by inner steps, and by nu; 0 stands for alternation."""
    model, data, config = model_of(client), data_of(client), client.config
    init_adapters(model, config.seed, 0)
    moments, _ = train_locally(
        client, model, data.train, data.valid, {}, round_number=1, steps=steps, steps_done=0
    )
    learner = Learner(Trainee(client, model, data.train, data.valid, moments, steps), 2)
    theta, phi = list(learner.experts.values()), list(learner.routers.values())
    rates = adam_rates(learner.expert_optimizer)
    train = learner.draw(data.train, learner.router_batches)
    valid = learner.draw(data.valid, learner.router_batches)
    for parameter in (*theta, *phi):
        parameter.requires_grad_(True)

    def loss_of(windows: Tensor) -> Callable[[int], Tensor]:
        return lambda step: _loss(model, windows, config)

    def estimate(inner: int, nu: float) -> Tensor:
        """The gradient along the directions."""
        found = hypergradient(
            loss_of(train), loss_of(valid), theta, phi, rates=rates, nu=nu, steps=inner
        )
        return torch.stack([_dot(found, each) for each in along])

    rng = torch.Generator().manual_seed(0)
    along = [[torch.randn(p.shape, generator=rng) for p in phi] for _ in range(directions)]
    errors: dict[str, dict[float, float]] = {}
    for inner in INNER:
        estimates = {nu: estimate(inner, nu) for nu in nus}
        frozen = torch.stack([_dot(_valid_only(loss_of, valid, phi), each) for each in along])
        truth = _truth(loss_of, train, valid, theta, phi, rates, inner, along)
        rows = {0.0: frozen} | estimates
        errors[str(inner)] = {
            nu: float((row.double() - truth).norm() / truth.norm()) for nu, row in rows.items()
        }
    return errors


def _loss(model: nn.Module, windows: Tensor, config: ClientConfig) -> Tensor:
    ce = token_loss(model, windows, "mean")
    return ce + config.router.balance * balance_loss(model, config.router.generalist_importance)


def _valid_only(
    loss_of: Callable[[Tensor], Callable[[int], Tensor]], valid: Tensor, phi: list[nn.Parameter]
) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(valid)(0), phi))


def _dot(one: list[Tensor], two: list[Tensor]) -> Tensor:
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), torch.zeros(()))


def _truth(
    loss_of: Callable[[Tensor], Callable[[int], Tensor]],
    train: Tensor,
    valid: Tensor,
    theta: list[nn.Parameter],
    phi: list[nn.Parameter],
    rates: list[Tensor | float],
    inner: int,
    along: list[list[Tensor]],
) -> Tensor:
    """d/dphi of the validation loss after `inner` steps on the training batch."""
    start, routers = [t.detach().clone() for t in theta], [p.detach().clone() for p in phi]

    def value(direction: list[Tensor], by: float) -> float:
        with torch.no_grad():
            for p, centre, d in zip(phi, routers, direction, strict=True):
                p.copy_(centre + by * d)
            for t, centre in zip(theta, start, strict=True):
                t.copy_(centre)
        for _ in range(inner):
            gradients = torch.autograd.grad(loss_of(train)(0), theta)
            with torch.no_grad():
                for t, gradient, rate in zip(theta, gradients, rates, strict=True):
                    t -= rate * gradient
        with torch.no_grad():
            return float(loss_of(valid)(0))

    slopes = [(value(d, EPS) - value(d, -EPS)) / (2 * EPS) for d in along]
    with torch.no_grad():
        for tensors, centres in ((phi, routers), (theta, start)):
            for tensor, centre in zip(tensors, centres, strict=True):
                tensor.copy_(centre)
    return torch.tensor(slopes, dtype=torch.float64)


if __name__ == "__main__":
    main()
