"""The methods that personalise go with whatever a run may ask for besides."""

import pytest

import comigs
from comigs.app.run import plan
from tests.helpers import events, numbers

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow
RIVALS = ["mr-mtl", "ditto", "apfl", "fedala", "fedalt", "feddpa", "flame"]
REFUSED = ("fedalt", "flame")  # where the server does not take the plain mean


@pytest.mark.parametrize("method", RIVALS)
@pytest.mark.parametrize(
    "more",
    [
        {
            "participation": 0.7,
            "train": {"checkpointing": True, "clip": 1.0},
            "micro_batch_size": 1,
        },
        {"payload": {"codec": "topk-int8", "keep": 0.5}},
        {"server": {"strategy": "FedProx", "options": {"proximal_mu": 1.0}}},
        {"privacy": {"mechanism": "client", "where": "client"}},
        {"engine": {"fuse": 2}},
    ],
    ids=str,
)
def test_a_rival_goes_with_everything(tree, tmp_path, method, more):
    if method in REFUSED and set(more) & {"payload", "server", "privacy"}:
        with pytest.raises(comigs.BadInput, match=r"^(payload\.codec|server|privacy)"):
            comigs.run(tree | {"experts": {"rank": 2}, "method": method} | more, out=tmp_path)
        return
    even = {"experts": {"rank": 2}, "method": method}
    folder = comigs.run(tree | even | more, out=tmp_path / "run").folder
    assert not events(folder, "failure")
    assert len(events(folder, "final")) == 3
    if "engine" in more:
        alone = comigs.run(tree | even, out=tmp_path / "alone").folder
        pairs = zip(events(folder, "final"), events(alone, "final"), strict=True)
        assert all(a["after"] == pytest.approx(b["after"], rel=1e-5) for a, b in pairs)
        ours, theirs = numbers(folder)[0], numbers(alone)[0]
        assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("method", RIVALS)
def test_a_plan_says_what_a_rival_then_does(tree, quick_plans, tmp_path, method):
    devices = {"profiles": ["laptop", "board", "laptop"]}
    config = tree | {"experts": {"rank": 2}, "method": method, "devices": devices}
    _, planned = plan(config)
    folder = comigs.run(config, out=tmp_path / "run").folder
    moved = [(row["bytes_up"], row["bytes_down"]) for row in events(folder, "final")]
    assert moved == [(client.up_run, client.down_run) for client in planned.clients]
    later = [e for e in events(folder, "client") if e["round"] > 1]  # that begin with an arrival
    for number, client in enumerate(planned.clients):
        mine = [e["sim_compute"] for e in later if e["client"] == number]
        if method != "fedala" or len(mine) == 2:  # an average over all rounds
            assert sum(mine) == pytest.approx(len(mine) * client.device.seconds)
