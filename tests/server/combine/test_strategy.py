"""Flower's own strategies on the shared tensors."""

import numpy as np
import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

import comigs
from comigs.config.load import load_config, read_config
from comigs.config.strategies import STRATEGIES
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.local.round import Order, start_of, train_round
from comigs.store.state import read_state
from comigs.training.trainee import Trainee
from comigs_server.combine.flower import FlowerRule
from comigs_server.fleet.update import Update
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)

SETTINGS = {
    "FedProx": {"proximal_mu": 0.5},
    "FedAdam": {"eta": 0.01},
    "FedYogi": {"eta": 0.01},
    "FedAvgM": {"server_momentum": 0.5},
    "FedTrimmedAvg": {"beta": 0.34},
    "MultiKrum": {"num_nodes_to_select": 2},
}


def with_strategy(tree, name, **options):
    return tree | {"server": {"strategy": name, "options": options or SETTINGS.get(name, {})}}


def shared(folder, number):
    return read_state(folder / "server", number)[0]["shared"]


def sent(folder, number):
    held = [
        read_state(folder / "clients" / str(client), number)[0]["tensors"] for client in range(3)
    ]
    return {name: torch.stack([h[name] for h in held]) for name in shared(folder, number)}


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "FedAvg"])
def test_a_run_stopped_between_rounds_ends_bit_identical(name, tree, tmp_path):
    tree = with_strategy(tree, name)
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)
    assert all(tensor.dtype == torch.float32 for tensor in shared(whole, 3).values())


def test_fedmedian_is_the_median(tree, tmp_path):
    folder = comigs.run(with_strategy(tree, "FedMedian"), out=tmp_path).folder
    for name, tensors in sent(folder, 2).items():
        np.testing.assert_array_equal(shared(folder, 2)[name], np.median(tensors.numpy(), 0))


def test_krum_takes_one_clients_tensors(tree, tmp_path):
    folder = comigs.run(with_strategy(tree, "Krum"), out=tmp_path).folder
    tensors, chosen = sent(folder, 2), shared(folder, 2)
    assert any(all(torch.equal(tensors[n][i], chosen[n]) for n in chosen) for i in range(3))


def test_fedavgm_without_momentum_is_the_mean(tree, tmp_path):
    settings = with_strategy(tree, "FedAvgM", server_momentum=0.0)
    folder = comigs.run(settings, out=tmp_path).folder
    for name, tensors in sent(folder, 1).items():
        torch.testing.assert_close(shared(folder, 1)[name], tensors.mean(0), rtol=1e-5, atol=1e-7)


def test_fedhyper_goes_on_by_the_cosine_of_two_mean_updates(tree, tmp_path):
    folder = comigs.run(with_strategy(tree, "FedHyper"), out=tmp_path).folder
    means = [{n: t.mean(0) for n, t in sent(folder, number).items()} for number in (1, 2, 3)]
    held = [shared(folder, number) for number in (1, 2, 3)]
    for name, mean in means[0].items():  # the first is FedAvg's
        torch.testing.assert_close(held[0][name], mean, rtol=1e-5, atol=1e-7)
    second, third = (
        {name: means[i][name] - held[i - 1][name] for name in means[i]} for i in (1, 2)
    )
    flat = [torch.cat([d[n].flatten() for n in sorted(d)]).double() for d in (second, third)]
    s = 0.0
    start = start_of(resolve(read_config(folder)))
    before = torch.cat([(held[0][n] - start[n]).flatten() for n in sorted(second)]).double()
    for i, (update, last) in enumerate(zip(flat, (before, flat[0]), strict=True), 1):
        s = min(max(s + torch.cosine_similarity(update, last, 0).item(), -0.8), 4.0)
        assert abs(s) > 1e-3
        for name in second:
            wanted = held[i - 1][name] + (1 + s) * (means[i][name] - held[i - 1][name])
            torch.testing.assert_close(held[i][name], wanted, rtol=1e-4, atol=1e-6)


def test_fedhypersl_is_fedavg_whose_clients_train_at_the_servers_rate(tree, tmp_path, monkeypatch):
    """Round 3 is that of clients whose `train.lr` is as many times larger."""
    factors = []
    at_rate = Trainee.__init__

    def watched(self, *arguments, **named):
        at_rate(self, *arguments, **named)
        factors.append(self.lr_factor)

    monkeypatch.setattr(Trainee, "__init__", watched)
    folder = comigs.run(with_strategy(tree, "FedHyperSL"), out=tmp_path).folder
    held = [shared(folder, number) for number in (1, 2, 3)]
    for number, tensors in enumerate(held, 1):
        for name, each in sent(folder, number).items():
            torch.testing.assert_close(tensors[name], each.mean(0), rtol=1e-5, atol=1e-7)
    start = start_of(resolve(read_config(folder)))
    first, second = (
        torch.cat([(b[n] - a[n]).flatten() for n in sorted(a)]).double()
        for a, b in ((start, held[0]), (held[0], held[1]))
    )
    s = torch.cosine_similarity(first, second, 0).item()
    assert factors == pytest.approx([1.0] * 6 + [1 + s] * 3, rel=1e-4)


def test_a_rates_factor_is_that_of_train_lr(tree, tmp_path):
    """One local step with twice the rate, and with twice `train.lr`."""
    tree = tree | {"rounds": 1, "local_steps": 1, "router": {"trainable": False}}

    def trained(name, lr, factor):
        client = resolve(load_config(tree | {"train": {"lr": lr}})).client(0)
        return train_round(Order(client, 1, 0, {}, tmp_path / name, lr_factor=factor))[0]

    one, two = trained("a", 1e-3, 2.0), trained("b", 2e-3, 1.0)
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(("turn", "least", "most"), [(1.0, 5.0, 5.0), (-1.0, 0.2, 0.2)])
def test_fedhypers_rate_stays_within_its_bounds(turn, least, most, monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    rule = FlowerRule(STRATEGIES["FedHyper"], {})
    kept, step, ratio = {"x": torch.zeros(1)}, 1.0, 0.0
    for number in range(1, 8):
        rule.tells(number, kept, [0])
        update = Update(0, {"x": kept["x"] + step}, 1.0)
        made = rule.combine(number, [update], kept)
        ratio = ((made["x"] - kept["x"]) / step).item()
        kept, step = made, step * turn
    assert least - 1e-5 <= ratio <= most + 1e-5


def test_fedprox_keeps_shared_tensors_near_where_the_round_began(tree, tmp_path):
    def moved(mu):
        folder = comigs.run(with_strategy(tree, "FedProx", proximal_mu=mu), out=tmp_path / str(mu))
        tensors, start = sent(folder.folder, 2), shared(folder.folder, 1)
        return sum(float((tensors[n] - start[n]).square().sum()) for n in start)

    assert moved(1000.0) < 0.9 * moved(1e-9)


def test_weighting_by_samples_reaches_flowers_strategies(tree, tmp_path):
    settings = with_strategy(tree, "FedProx", proximal_mu=1e-9)
    settings["server"]["weighting"] = "samples"
    folder = comigs.run(settings, out=tmp_path).folder
    weights = torch.tensor([float(e["num-examples"]) for e in events(folder, "client")[:3]])
    assert len(set(weights.tolist())) > 1
    for name, tensors in sent(folder, 1).items():
        mean = torch.einsum("n,n...->...", weights / weights.sum(), tensors)
        torch.testing.assert_close(shared(folder, 1)[name], mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"options": {"etha": 1}},
            "server.options has 'etha', which FedAdam does not know; it has",
        ),
        (
            {"strategy": "FedMedian", "weighting": "samples"},
            "server.weighting is 'samples', but to FedMedian all clients count alike",
        ),
        ({"options": {"eta": -1}}, "server.options.eta is -1; it must be a number from"),
        ({"options": {"eta": "x"}}, "server.options.eta is 'x'"),
        ({"strategy": "Krum", "options": {"eta": 1}}, "Krum does not know; it has num_malicious"),
        ({"strategy": "FedMedian", "options": {"eta": 1}}, "it has none"),
        (
            {"strategy": "FedTrimmedAvg", "options": {"beta": 0.7}},
            "options.beta is 0.7; it must be",
        ),
        ({"options": {"eta": float("nan")}}, "server.options.eta is nan"),
        ({"options": {"beta_1": 5}}, "server.options.beta_1 is 5"),
        ({"options": {"beta_2": True}}, "server.options.beta_2 is True"),
        ({"options": {"eta": 10**400}}, "server.options.eta is a number of 400 digits"),
        ({"strategy": "Krum", "options": {"num_malicious_nodes": 100}}, "needs 203 clients"),
        ({"strategy": "Krum", "options": {"num_malicious_nodes": 1.5}}, "a whole number"),
        ({"strategy": "MultiKrum", "options": {"num_nodes_to_select": 0}}, "select is 0"),
        ({"strategy": "MultiKrum", "options": {"num_nodes_to_select": 9}}, "only 3 clients"),
        (
            {"strategy": "Bulyan", "options": {"num_malicious_nodes": 1}},
            "needs 7 clients in a round; only 3 take part",
        ),
    ],
)
def test_what_a_strategy_cannot_do_is_refused_before_anything_starts(
    change, reason, tree, tmp_path
):
    with pytest.raises(BadInput, match=reason):
        comigs.run(tree | {"server": {"strategy": "FedAdam"} | change}, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("hetlora", "method 'hetlora' combines updates in its own way"),
        ("comigs-2g", "needs clients that share the same tensors"),
        ("local", "method 'local' shares nothing"),
    ],
)
def test_a_strategy_needs_equal_shared_tensors_and_a_method_that_averages(
    method, reason, tree, tmp_path
):
    with pytest.raises(BadInput, match=reason):
        comigs.run(with_strategy(tree, "FedMedian") | {"method": method}, out=tmp_path)


@pytest.mark.parametrize("method", ["pcl", "cobo", "fedalt"])
def test_weights_are_refused_where_a_method_counts_all_clients_alike(method, tree, tmp_path):
    settings = tree | {"method": method, "experts": {"rank": 2}, "server": {"weighting": "samples"}}
    with pytest.raises(BadInput, match=f"but to method '{method}' all clients count alike"):
        comigs.run(settings, out=tmp_path)
