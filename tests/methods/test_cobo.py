"""CoBo: how a weight moves, where a round begins, who meets whom, and the groups it finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.aggregation.meetings import AGGREGATOR
from comigs.errors import BadInput
from comigs.messages.fields import MIDPOINT
from comigs.methods.base import generalists
from comigs.methods.cobo import PARTNER, START, WEIGHT, moved, partner_of, pulled
from tests.helpers import events
from tests.methods.stepping import gradient_on_draw, noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def vector(*values):
    return {"x": torch.tensor(values)}


def test_a_weight_moves_by_the_product_of_the_two_gradients_and_stays_within_0_and_1():
    assert moved(0.25, vector(1.0, 2.0), vector(3.0, -1.0)) == pytest.approx(0.35)
    assert moved(0.25, vector(1.0, 2.0), vector(3.0, -2.0)) == pytest.approx(0.15)
    assert moved(0.5, vector(3.0), vector(-2.0)) == 0.0
    assert moved(0.5, vector(3.0), vector(2.0)) == 1.0


def test_a_round_begins_from_own_and_peers_by_weight():
    peers = {1: vector(4.0), 2: vector(10.0)}
    assert pulled(vector(1.0), peers, {1: 1.0, 2: 1.0})["x"].item() == 5  # the mean of all
    assert pulled(vector(1.0), peers, {1: 0.0, 2: 0.0})["x"].item() == 1
    assert pulled(vector(1.0), peers, {1: 0.5, 2: 0.0})["x"].item() == 2  # (1 + 2) / 1.5


@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 50))
def test_meetings_are_a_matching(seed, count, number):
    clients = list(range(0, 2 * count, 2))
    met = {i: partner_of(i, clients, seed, number) for i in clients}
    assert all(met[j] == i and i != j for i, j in met.items() if j is not None)
    assert sum(j is None for j in met.values()) == count % 2


def test_hidden_groups_are_found_on_quadratics():
    """f_i = ||x - c_i||^2 / 2, six clients about two centres that lie on either side of 0."""
    rng = torch.Generator().manual_seed(0)
    group = [0, 1, 0, 1, 1, 0]
    centre = [torch.tensor([3.0, 1.0, 0.0]) * (1 - 2 * g) for g in group]
    centre = [c + 0.3 * torch.randn(3, generator=rng) for c in centre]
    x, weights = {i: vector(0.0, 0.0, 0.0) for i in range(6)}, {}
    for number in range(1, 31):
        for i in range(6):
            j = partner_of(i, range(6), 7, number)
            z = (x[i]["x"] + x[j]["x"]) / 2
            mine, theirs = vector(*(z - centre[i])), vector(*(z - centre[j]))
            weights[i, j] = moved(weights.get((i, j), START), mine, theirs)
        row = {i: {j: weights.get((i, j), START) for j in range(6) if j != i} for i in range(6)}
        x = {i: pulled(x[i], {j: x[j] for j in row[i]}, row[i]) for i in range(6)}
        x = {i: vector(*(x[i]["x"] - 0.2 * (x[i]["x"] - centre[i]))) for i in range(6)}
    found = {pair: weight > 0.5 for pair, weight in weights.items()}
    assert len(found) == 30 and all(found[i, j] == (group[i] == group[j]) for i, j in found)
    assert all(weights[i, j] == weights[j, i] for i, j in weights)
    for g in (0, 1):
        mean = torch.stack([centre[i] for i in range(6) if group[i] == g]).mean(0)
        assert all(torch.dist(x[i]["x"], mean) < 0.3 for i in range(6) if group[i] == g)


def test_a_gradient_holds_for_one_round_and_tensors_until_newer_ones_come():
    kept = {"0/w": torch.ones(1), f"0/{MIDPOINT}w": torch.ones(1)}
    assert list(AGGREGATOR.lasting(kept)) == ["0/w"]
    assert (
        AGGREGATOR.arriving(f"0/{MIDPOINT}a.w").name == AGGREGATOR.arriving("0/a.w").name == "a.w"
    )


def test_the_gradient_that_travels_is_at_the_midpoint_and_the_next_round_learns_from_it(
    tree, tmp_path
):
    client = plain_client(tree, "cobo", local_steps=1)
    _, first, _ = play(client, tmp_path, 1, 0, {})
    shapes = client.method.travelling({name: t.shape for name, t in adapters(first).items()})
    assert all(not first[name].any() for name in shapes if name.startswith(MIDPOINT))
    mine = {name: t for name, t in first.items() if generalists(name) and "/" not in name}
    peer = noisy(mine)
    arrived = {f"0/{n}": t for n, t in mine.items()} | {f"1/{n}": t for n, t in peer.items()}
    start, sent, metrics = play(client, tmp_path, 2, 1, arrived)
    half_way = {name: (t + peer[name]) / 2 for name, t in mine.items()}
    expected = gradient_on_draw(client, adapters(first) | half_way, 2, "cobo batch", generalists)
    for name, each in expected.items():
        torch.testing.assert_close(sent[MIDPOINT + name], each, rtol=1e-3, atol=1e-6)
        begun = (mine[name] + START * peer[name]) / (1 + START)
        torch.testing.assert_close(start[name], begun, rtol=1e-5, atol=1e-6)
    assert metrics["peer_evaluation_tokens"] == 2 * 16
    assert saved(tmp_path, 2)[1]["kept"] == {PARTNER: 1}
    theirs = {name: 2 * g for name, g in noisy(expected, 5, 1e-3).items()}
    arrived |= {f"0/{MIDPOINT}{n}": t for n, t in expected.items()}
    arrived |= {f"1/{MIDPOINT}{n}": t for n, t in theirs.items()}
    play(client, tmp_path, 3, 2, arrived)
    learnt = saved(tmp_path, 3)[1]["kept"][f"{WEIGHT}1"]
    assert learnt == pytest.approx(moved(START, expected, theirs)) and learnt > START


def test_who_is_new_meets_nobody_and_only_the_last_meeting_counts(tree, tmp_path):
    """All who meet draw from the same clients; a gradient of a meeting before says nothing."""
    client = plain_client(tree, "cobo", local_steps=1)
    _, first, _ = play(client, tmp_path, 1, 0, {})
    mine = {name: t for name, t in first.items() if generalists(name) and "/" not in name}
    peer = {f"1/{n}": t for n, t in noisy(mine).items()}
    new = play(client, tmp_path, 2, 1, peer)
    assert not any(new[1][name].any() for name in new[1] if name.startswith(MIDPOINT))
    assert PARTNER not in saved(tmp_path, 2)[1].get("kept", {}) and "peer_evaluations" not in new[2]
    known = peer | {f"0/{n}": t for n, t in mine.items()}
    _, sent, _ = play(client, tmp_path, 3, 2, known)
    met = {name: t for name, t in sent.items() if name.startswith(MIDPOINT)}
    theirs = {f"1/{name}": t for name, t in met.items()}
    for number, size, moves in ((4, 1, True), (5, 2, False)):
        arrived = known | theirs | {f"0/{name}": size * t for name, t in met.items()}
        play(client, tmp_path, number, 3, arrived)
        assert (f"{WEIGHT}1" in saved(tmp_path, number)[1]["kept"]) == moves


def adapters(tensors):
    return {name: t for name, t in tensors.items() if "/" not in name}


def test_a_run_learns_a_symmetric_graph(tree, tmp_path):
    tree = tree | {"method": "cobo", "experts": {"rank": 2}, "rounds": 4}
    folder = comigs.run(tree, out=tmp_path).folder
    kept = [saved(folder / "clients" / str(i), 4)[1]["kept"] for i in range(3)]
    graph = {(i, j): kept[i].get(f"{WEIGHT}{j}") for i in range(3) for j in range(3) if i != j}
    assert all(graph[i, j] == graph[j, i] for i, j in graph) and any(graph.values())
    whole = [e for e in events(folder, "client") if e["round"] == 1]
    assert all(e.get("peer_evaluations") is None for e in whole)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"codec": "int8"}},
        {"experts": {"rank": [1, 2, 2]}},
        {"server": {"late": "keep"}, "devices": {"profiles": ["phone-low"] * 3}},
    ],
)
def test_what_its_mathematics_does_not_allow_is_refused(tree, tmp_path, change):
    with pytest.raises(BadInput, match="cobo"):
        comigs.run(tree | {"method": "cobo", "experts": {"rank": 2}} | change, out=tmp_path)
