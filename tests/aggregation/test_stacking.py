"""Stacking methods stay exact whatever becomes of rounds and clients."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import comigs
from comigs.aggregation import find_aggregator
from comigs.mixture.deltas import append
from comigs.store.state import read_state
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)

RANK, OUT, IN, CLIENTS = 2, 6, 7, 3
PAIRS = {"one": {0, 1, 2}, "two": {1, 2}, "three": {2}}  # who holds each pair
SCALE = 16 / math.sqrt(RANK)

# Per client: away, trained in time, or trained and discarded for being late.
rounds = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.sampled_from(["away", "in time", "late"]), min_size=3, max_size=3),
    ),
    min_size=1,
    max_size=6,
)
ABANDONED, LAST_LATE = (True, ["in time"] * 3), (False, ["in time", "in time", "late"])


def name(pair, kind, half):
    return f"{pair}.{kind}_{half}.generalist_0.weight"


def scale(rank):
    return 16 / math.sqrt(rank)


def shapes_of(client):
    held = [pair for pair, holders in PAIRS.items() if client in holders]
    a = {name(pair, "lora", "A"): (RANK, IN) for pair in held}
    return a | {name(pair, "lora", "B"): (OUT, RANK) for pair in held}


def take(own, sent):
    """What `comigs.mixture.deltas.add_arrived` and the methods do with what arrives."""
    for pair in PAIRS:
        stack, delta, lora = (
            tuple(sent.get(name(pair, kind, half)) for half in "AB")
            for kind in ("stack", "delta", "lora")
        )
        if stack[0] is not None:
            own[pair] = append(own.get(pair), stack)
        if delta[0] is not None:
            own[pair] = delta
        if lora[0] is not None:
            own[f"{pair} lora"] = lora


def weight(own, pair, with_lora):
    total = torch.zeros(OUT, IN, dtype=torch.float64)
    for part, factor in ((own.get(pair), 1.0), (own.get(f"{pair} lora"), SCALE * with_lora)):
        if part is not None:
            total += factor * (part[1].double() @ part[0].double())
    return total


@settings(max_examples=60)
@given(st.sampled_from(["flora", "fedex"]), rounds)
@example("flora", [LAST_LATE, ABANDONED, LAST_LATE])
@example("fedex", [(False, ["in time"] * 3), LAST_LATE, (False, ["in time", "away", "away"])])
def test_every_client_ends_with_the_exact_mean(rule, history):
    aggregator, rng = find_aggregator(rule), torch.Generator().manual_seed(1)
    kept, trained_in, own = {}, {}, [{} for _ in range(CLIENTS)]
    exact = {pair: torch.zeros(OUT, IN, dtype=torch.float64) for pair in PAIRS}
    residual = {pair: torch.zeros(OUT, IN, dtype=torch.float64) for pair in PAIRS}
    for number, (abandoned, fates) in enumerate(history, 1):
        updates = {}
        for client, fate in enumerate(fates):
            if fate == "away":
                continue
            fresh = trained_in.get(client) == number - 1
            take(own[client], aggregator.deliver(kept, shapes_of(client), scale, fresh))
            if fate == "in time":
                shapes = shapes_of(client).items()
                updates[client] = {n: torch.randn(s, generator=rng) for n, s in shapes}
        trained_in |= {c: number for c, fate in enumerate(fates) if fate != "away"}
        combined = {}
        if updates and not abandoned:
            combined = aggregator.combine(updates, dict.fromkeys(updates, 1.0), scale, kept)
        kept = aggregator.lasting(kept) | combined
        for pair, holders in PAIRS.items():
            sent = [updates[c] for c in sorted(holders & updates.keys())]
            if combined and sent:
                products = [
                    SCALE
                    * u[name(pair, "lora", "B")].double()
                    @ u[name(pair, "lora", "A")].double()
                    for u in sent
                ]
                mean = sum(products) / len(products)
                residual[pair] += mean  # of the frozen weight, where averages are not added to it
                exact[pair] = residual[pair].clone()
                if rule == "fedex":
                    averaged = [
                        sum(u[name(pair, "lora", h)].double() for u in sent) / len(sent)
                        for h in "AB"
                    ]
                    residual[pair] -= SCALE * averaged[1] @ averaged[0]
    for client in range(CLIENTS):
        fresh = trained_in.get(client) == len(history)
        take(own[client], aggregator.deliver(kept, shapes_of(client), scale, fresh))
        for pair in (p for p, holders in PAIRS.items() if client in holders):
            got = weight(own[client], pair, rule == "fedex")
            error = (got - exact[pair]).norm() / max(exact[pair].norm(), torch.tensor(1.0))
            assert error < 1e-5, (rule, client, pair)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["flora", "fedex-lora"])
def test_an_abandoned_round_leaves_no_stack_behind(tree, tmp_path, method):
    """Client 0 alone is there in round 2, of which `min_clients` asks for two."""
    steady = {"memory": 8e9, "flops": {"float32": 1e12, "bfloat16": 1e12}, "up": 1e9, "down": 1e9}
    steady |= {"latency": 0.0, "dropout": 0.0, "watts": 1.0}
    define = {"always": steady | {"trace": "1"}, "sometimes": steady | {"trace": "10"}}
    profiles = ["always", "sometimes", "sometimes"]
    tree = tree | {
        "method": method,
        "devices": {"profiles": profiles, "define": define},
        "experts": tree["experts"] | {"dropout": 0.0, "specialists": 1},
        "server": {"min_clients": 2},
        "rounds": 2,
        "seed": 3,
    }
    folder = comigs.run(tree, out=tmp_path).folder
    abandoned = [event["abandoned"] for event in events(folder, "round")]
    assert abandoned == [False, True], "choose a seed with clients 1 and 2 there in round 1 only"
    before, after = (read_state(folder / "server", n)[0]["shared"] for n in (1, 2))
    assert any(".stack_" in n for n in before)
    assert not any(".stack_" in n for n in after)
    for client in range(3):
        end = read_state(folder / f"clients/{client}/final", 1 if client else 2)[0]["tensors"]
        delta = next(n for n in sorted(after) if ".delta_B." in n)
        other = delta.replace(".delta_B.", ".delta_A.")
        torch.testing.assert_close(end[delta] @ end[other], after[delta] @ after[other])
