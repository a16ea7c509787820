"""FedALT: the frozen expert is the mean of the others', and nobody's own is overwritten."""

import pytest
import torch

import comigs
from comigs.aggregation.others import without
from tests.helpers import events
from tests.methods.stepping import noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def test_a_client_gets_the_mean_of_the_others():
    kept = {f"{i}/a": torch.tensor([float(i), 10.0 * i]) for i in (1, 2, 6)}
    assert without(kept, 1)["a"].tolist() == [4.0, 40.0]
    assert without(kept, 6)["a"].tolist() == [1.5, 15.0]
    assert without(kept, 9)["a"].tolist() == [3.0, 30.0]  # it has sent nothing yet
    alone = without({"1/a": torch.ones(2)}, 1)
    assert alone["a"].tolist() == [0.0, 0.0]


def rest_of(name):
    return name.replace(".generalist_0.", ".specialist_0.")


def test_what_arrives_is_frozen_and_the_own_expert_goes_on(tree, tmp_path):
    client = plain_client(tree, "fedalt")
    _, trained, _ = play(client, tmp_path, 1, 0, {})
    shares = client.method.shares
    mean = noisy({n: t for n, t in trained.items() if shares(n)})
    start, after, _ = play(client, tmp_path, 2, 1, mean)
    for name, tensor in start.items():
        if name in mean:
            assert torch.equal(tensor, trained[name])
            assert torch.equal(start[rest_of(name)], mean[name])
            assert torch.equal(after[rest_of(name)], mean[name])
            assert not torch.equal(after[name], tensor)
        elif ".attn." in name or ".router." in name:
            assert torch.equal(tensor, trained[name])
            assert not torch.equal(after[name], tensor)
    moments = saved(tmp_path, 2)[0]["optimizer"]
    assert not any("specialist_0" in name for name in moments)


@pytest.mark.parametrize("participation", [1.0, 0.6])
def test_in_a_run_the_rest_is_everybodys_latest_but_the_own(
    tree, tmp_path, monkeypatch, participation
):
    monkeypatch.setattr("comigs.store.state.KEEP", 9)
    more = {"method": "fedalt", "experts": {"rank": 2}, "rounds": 4}
    more |= {"participation": participation}
    folder = comigs.run(tree | more, out=tmp_path).folder
    took = {(e["round"], e["client"]) for e in events(folder, "client")}
    sent, checked = {}, 0
    for number in range(1, 5):
        for client in range(3):
            if (number, client) not in took:
                continue
            held = saved(folder / "clients" / str(client), number)[0]["tensors"]
            others = [tensors for sender, tensors in sent.items() if sender != client]
            for name in (n for n in held if ".generalist_0." in n and ".mlp." in n and others):
                mean = sum(tensors[name].double() for tensors in others) / len(others)
                found = held[rest_of(name)].double()
                torch.testing.assert_close(found, mean, rtol=0, atol=1e-7)
                checked += 1
        for client in range(3):
            if (number, client) in took:
                held = saved(folder / "clients" / str(client), number)[0]["tensors"]
                sent[client] = held
    assert checked
    assert participation == 1.0 or len(took) < 12
