"""Every method in a small federation: what travels, what stays, what trains."""

import math
from functools import cache

import pytest
import torch

import comigs
from comigs.config.load import load_config
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.local.round import start_of
from comigs.messages.fields import ACTIVATIONS
from comigs.methods import all_methods, find_method
from comigs.mixture.ranks import pairs
from comigs.store.state import read_state
from tests.costs.test_traffic import assert_bytes
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow
TRAINED = [name for name, method in all_methods().items() if method.trains]
FEDERATED = [name for name in TRAINED if not all_methods()[name].pooled]
ROUTERS_TRAVEL = (
    "fedavg-moe", "comigs-adaptive", "mr-mtl", "ditto", "apfl", "fedala", "flame",
)  # fmt: skip
ROUNDS = 3


@pytest.fixture(scope="module")
def even(tree):
    """The tests' federation with the same experts everywhere, which every method can do."""
    return tree | {"experts": {"specialists": 1, "rank": 2}, "rounds": ROUNDS}


@pytest.fixture(scope="module")
def both_runs(even, tmp_path_factory):
    """The folders of a finished run of any method, and of its copy that was cut and resumed."""

    @cache
    def run(method):
        return run_and_resumed(even | {"method": method}, tmp_path_factory.mktemp(method))

    return run


@pytest.fixture(scope="module")
def runs(both_runs):
    """The folder of a finished run of any method."""

    def run(method):
        return both_runs(method)[0]

    return run


def state(folder, client, number=ROUNDS):
    return read_state(folder / "clients" / str(client), number)[0]["tensors"]


def server(folder, number=ROUNDS):
    return read_state(folder / "server", number)[0]["shared"]


def final(folder, client):
    return read_state(folder / "clients" / str(client) / "final", ROUNDS)[0]["tensors"]


@pytest.mark.parametrize("method", FEDERATED)
def test_bytes_follow_from_the_share_mask(method, even, runs):
    """Up: what the method lets travel. Down: what the aggregator makes of n clients' of that."""
    clients, folder = 3, runs(method)
    shapes = {n: tuple(t.shape) for n, t in state(folder, 0, 1).items() if ".delta_" not in n}
    sizes = {n: 4 * math.prod(s) for n, s in find_method(method).travelling(shapes).items()}
    up, back = sum(sizes.values()), sum(s for n, s in sizes.items() if ACTIVATIONS not in n)
    down = {"pcl": clients, "cobo": clients, "flora": clients, "fedex-lora": 1 + clients + 1}.get(
        method, 1
    ) * back
    for row in events(folder, "final"):
        assert row["bytes_up"] == ROUNDS * up
        assert row["bytes_down"] == ROUNDS * down  # none in round 1, one more at the end
        assert row["communicated"] == up / 4
    for event in events(folder, "client"):
        assert event["bytes_up"] == up
        assert event["bytes_down"] == (0 if event["round"] == 1 else down)


@pytest.mark.parametrize("method", TRAINED)
def test_a_run_cut_off_between_rounds_ends_bit_identical(method, both_runs):
    whole, resumed = both_runs(method)
    assert_same_numbers(resumed, whole)


@pytest.mark.parametrize("method", [name for name in TRAINED if name != "hetlora"])
def test_the_bytes_of_every_method_are_predicted(method, runs):
    assert_bytes(runs(method))


@pytest.mark.parametrize("method", TRAINED)
def test_the_final_model_is_the_one_that_was_tested(method, even, runs):
    from comigs.app.run import RunResult
    from comigs.evaluation.perplexity import perplexity
    from comigs.federation.clients import data_of

    folder = runs(method)
    config = load_config(folder / "config.yaml")
    model = RunResult(folder, []).client(0).model()
    run = resolve(config)
    data = data_of(run.client(0))
    row = events(folder, "final")[0]
    found = perplexity(model, data.tests[row["name"]], config.data.seq_len)
    assert math.isclose(found, row["after"], rel_tol=1e-6)
    assert len(run.names) == (1 if find_method(method).pooled else 3)


def test_ffa_keeps_a_bit_identical_on_all_clients_for_ever(even, runs):
    start = start_of(resolve(load_config(even | {"method": "fedavg"})))
    for number in range(1, ROUNDS + 1):
        for client in range(3):
            held = state(runs("ffa-lora"), client, number)
            for a, b in pairs(held):
                assert torch.equal(held[a], start[a])
                assert held[b].any()
    assert not any(".lora_A." in name for name in server(runs("ffa-lora")))


def test_fedsa_averages_a_and_keeps_b(runs):
    folder = runs("fedsa-lora")
    averaged = server(folder)
    assert averaged and not any(".lora_B." in name for name in averaged)
    for a, b in pairs(state(folder, 0)):
        held = [state(folder, i) for i in range(3)]
        mean = sum(h[a].double() for h in held) / 3
        torch.testing.assert_close(averaged[a].double(), mean, rtol=0, atol=1e-7)
        assert torch.equal(final(folder, 1)[b], held[1][b])
        assert not torch.equal(held[0][b], held[1][b])


@pytest.mark.parametrize("method", ["flora", "fedex-lora"])
def test_stacking_gives_every_client_the_exact_mean_delta(method, runs):
    """The clients' final deltas in all are equal, and the mean of what they trained."""
    folder = runs(method)
    scale = 16 / math.sqrt(2)

    def delta(tensors, a, b):
        total = scale * tensors[b].double() @ tensors[a].double()
        extra = a.replace(".lora_A.", ".delta_A."), a.replace(".lora_A.", ".delta_B.")
        if extra[0] in tensors:
            total += tensors[extra[1]].double() @ tensors[extra[0]].double()
        return total

    before = [state(folder, i) for i in range(3)]
    for a, b in pairs(before[0]):
        mean = sum(delta(tensors, a, b) for tensors in before) / 3
        for client in range(3):
            ours = delta(final(folder, client), a, b)
            torch.testing.assert_close(ours, mean, rtol=0, atol=1e-6 * float(mean.abs().max()))


def test_routers_travel_only_where_all_is_averaged(runs):
    for method in FEDERATED:
        travels = any("router" in name for name in server(runs(method)))
        assert travels == (method in ROUTERS_TRAVEL)


@pytest.mark.parametrize("method", ["pfedmoe", "fedavg-moe", "local-moe", "comigs-train-router"])
def test_routers_that_learn_on_training_text_move_and_never_see_validation_text(
    method, even, tmp_path, monkeypatch
):
    """Other validation text leaves every tensor as it was."""
    from dataclasses import replace

    from comigs.local import round as local

    def moved(out):
        comigs.run(even | {"method": method, "router": {"every": 2, "steps": 1}}, out=out)
        return state(out, 0)

    one = moved(tmp_path / "one")
    data_of = local.data_of
    monkeypatch.setattr(
        local, "data_of", lambda *a: replace(data_of(*a), valid=data_of(*a).valid.flip(0))
    )
    two = moved(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    router = next(name for name in one if "router" in name)
    assert not torch.equal(one[router], state(tmp_path / "one", 0, 1)[router])


@pytest.mark.parametrize(
    ("method", "experts", "ok"),
    [
        ("hetlora", {"rank": [1, 2, 3]}, True),
        ("flexlora", {"rank": [1, 2, 3], "specialists": [0, 1, 2], "top_k": 1}, True),
        ("flora", {"rank": [3, 1, 2], "specialists": [0, 1, 2], "top_k": 1}, True),
        ("comigs", {"rank": 2, "specialists": [0, 1, 3]}, True),
        ("fedavg", {"rank": 2, "specialists": [0, 1, 3]}, True),
        ("ffa-lora", {"rank": 2, "specialists": [0, 1, 3]}, True),
        ("fedex-lora", {"rank": 2, "specialists": [0, 1, 3]}, True),
        ("fedavg", {"rank": [1, 2, 3]}, "needs one rank for all clients"),
        ("fedex-lora", {"rank": [1, 2, 3]}, "needs one rank for all clients"),
        ("pcl", {"specialists": [1, 1, 2]}, "same number of experts and the same rank"),
        ("pcl", {"rank": [1, 2, 3]}, "same number of experts and the same rank"),
        ("fdlora", {"specialists": 2}, "must be 1"),
        ("flora", {"dropout": 0.1}, "experts.dropout must be 0"),
    ],
)
def test_unequal_devices_work_wherever_the_mathematics_allows(method, experts, ok, even, tmp_path):
    config = even | {"method": method, "experts": {"specialists": 1, "rank": 2} | experts}
    if ok is True:
        folder = comigs.run(config, out=tmp_path).folder
        assert all(math.isfinite(row["after"]) for row in events(folder, "final"))
        assert not events(folder, "failure")
    else:
        with pytest.raises(BadInput, match=ok):
            comigs.run(config, out=tmp_path)


def test_a_strategy_of_the_server_is_told_from_a_method():
    with pytest.raises(comigs.BadInput, match=r"for any method: server\.strategy=FedProx"):
        find_method("fedprox")
