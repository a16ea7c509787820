"""Installed packages add methods, families, trackers and the like without touching this one."""

import pytest

import comigs
from comigs.aggregation import find_aggregator
from comigs.backbone.families import family_of
from comigs.errors import BadInput
from comigs.evaluation.metrics import find_metric
from comigs.methods import all_methods, find_method
from comigs.prepare.settings import Settings
from comigs.track.tracker import tracker_names
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)

MODULE = """
from comigs.aggregation.mean import combine
from comigs.aggregation import Aggregator
from comigs.backbone.families import FAMILIES
from comigs.methods.base import Method, everything, same_experts

AGGREGATOR = Aggregator(combine, averages=True)
METHOD = Method("shout", "none", "a test", shares=everything, accepts=same_experts,
                aggregator="mean-again")
LIKE_LLAMA = FAMILIES["llama"]


def METRIC(model, tokens, config):
    return 7.0


class TRACKER:
    pass


def by_halves(clients, settings):
    from flwr_datasets.partitioner import IidPartitioner
    return IidPartitioner(clients)
"""
ENTRIES = """
[comigs.methods]
shout = helping_hand
[comigs.aggregation]
mean-again = helping_hand
[comigs.evaluation.metrics]
seven = helping_hand
[comigs.track]
helper = helping_hand
[comigs.backbone.families]
my_llama = helping_hand:LIKE_LLAMA
[comigs.prepare.partitions]
halves = helping_hand:by_halves
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a package and put it where packages are."""
    monkeypatch.syspath_prepend(tmp_path)
    all_methods.cache_clear()

    def make(entries, module=MODULE, name="helping_hand"):
        (tmp_path / f"{name}.py").write_text(module)
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entries)

    yield make
    all_methods.cache_clear()


def test_everything_that_has_a_name_can_be_added(install, tree, tmp_path):
    install(ENTRIES)
    assert find_method("shout").summary == "a test"
    assert find_aggregator("mean-again").averages
    assert "helper" in tracker_names()
    assert family_of("my_llama") == family_of("llama")
    Settings(clients=2, partition="halves").check()
    assert find_metric("seven")(None, None, None) == 7.0
    tree = tree | {"method": "shout", "experts": {"specialists": 1, "rank": 2}, "rounds": 1}
    comigs.run(tree, ["log.metrics=[seven]"], out=tmp_path / "run")
    assert events(tmp_path / "run", "round")[0]["metrics"] == {"seven": 7.0}


def test_a_partitioner_of_a_package_shares_examples_out(install, tmp_path):
    from comigs.prepare.prepare import prepare

    install(ENTRIES)
    (tmp_path / "lines.txt").write_text("\n".join(f"example {i}" for i in range(12)))
    prepare(
        str(tmp_path / "lines.txt"),
        tmp_path / "out",
        Settings(clients=2, partition="halves"),
        lambda *told: None,
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == [
        "client_0",
        "client_1",
    ]


def test_a_name_that_is_taken_is_refused(install):
    install("[comigs.aggregation]\nmean = helping_hand\n")
    with pytest.raises(BadInput, match=r"helping_hand, which helping_hand adds, is called 'mean'"):
        find_aggregator("mean")


def test_what_cannot_be_loaded_is_told_with_the_package(install):
    install("[comigs.methods]\nshout = broken\n", "import nothing_of_this_name", "broken")
    with pytest.raises(BadInput, match=r"which broken adds, cannot be loaded: .*nothing_of"):
        all_methods()
