"""What a client takes of the tensors that a server sends, method by method."""

import pytest
import torch

from comigs.config.load import load_config
from comigs.errors import Refusal
from comigs.federation.clients import model_of
from comigs.federation.run import resolve
from comigs.local.receive import check_arrived
from comigs.methods import all_methods, find_method
from comigs.mixture.adapters import adapter_tensors, init_adapters

pytest_plugins = ("tests.fixtures",)
METHODS = [name for name, method in all_methods().items() if method.trains]


@pytest.fixture
def arrived(tree):
    """The check for one method's client, and that client's tensors."""

    def arrived(name):
        config = load_config(tree | {"method": name, "experts": {"specialists": 1, "rank": 2}})
        run = resolve(config)
        model = model_of(run.client(0))
        init_adapters(model, 7, 0)
        return lambda shared: check_arrived(run, model, shared), adapter_tensors(model)

    return arrived


def sent_as(name, tensors):
    """Names as the server of this method sends them: with the peer's number, or as they are."""
    gathers = find_method(name).aggregator == "gather"
    return {f"0/{n}" if gathers else n: t for n, t in tensors.items()}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_shared_is_taken_and_nothing_else(arrived, name):
    check, tensors = arrived(name)
    shares = find_method(name).shares
    check(sent_as(name, {n: t for n, t in tensors.items() if shares(n)}))
    for own, tensor in tensors.items():
        if not shares(own):
            with pytest.raises(Refusal, match="is not shared by this method"):
                check(sent_as(name, {own: tensor}))


@pytest.mark.parametrize("name", METHODS)
def test_values_and_kinds_that_cannot_be_are_refused(arrived, name):
    check, tensors = arrived(name)
    own = next((n for n in tensors if find_method(name).shares(n)), None)
    if own is None:
        return
    good = tensors[own]
    for value in (float("nan"), float("inf"), -float("inf")):
        bad = good.clone()
        bad.view(-1)[-1] = value
        with pytest.raises(Refusal, match="NaN or infinity"):
            check(sent_as(name, {own: bad}))
    for bad in (good.double(), good.half(), good.bool(), good.long()):
        with pytest.raises(Refusal, match="only float32 travels"):
            check(sent_as(name, {own: bad}))
    for bad in (good[None], good.flatten(), good[0, 0]):
        with pytest.raises(Refusal, match="this client's model needs"):
            check(sent_as(name, {own: bad}))


@pytest.mark.parametrize("kind", ["stack", "delta"])
@pytest.mark.parametrize("name", METHODS)
def test_corrections_of_the_base_come_with_stacking_methods_only(arrived, name, kind):
    check, tensors = arrived(name)
    a = next(n for n in tensors if ".lora_A.generalist_0" in n or ".lora_A.specialist_0" in n)
    b = a.replace(".lora_A.", ".lora_B.")
    pair = {
        a.replace(".lora_", f".{kind}_"): torch.ones(5, tensors[a].shape[1]),
        b.replace(".lora_", f".{kind}_"): torch.ones(tensors[b].shape[0], 5),
    }
    if find_method(name).aggregator not in ("flora", "fedex"):
        with pytest.raises(Refusal):
            check(sent_as(name, pair))
        return
    check(pair)
    for half, other in (sorted(pair), sorted(pair, reverse=True)):
        for lie in ({half: pair[half]}, pair | {half: pair[half][:-1, :-1]}):
            with pytest.raises(Refusal, match="does not fit"):
                check(lie)
        with pytest.raises(Refusal):
            check(pair | {other: pair[other] * float("nan")})
