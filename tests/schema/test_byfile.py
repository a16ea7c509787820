"""Installed packages add methods, families, trackers and the like without touching this one."""

import pytest

import comigs
from comigs.aggregation import find_aggregator
from comigs.backbone.families import family_of
from comigs.errors import BadInput
from comigs.evaluation.metrics import find_metric
from comigs.methods import all_methods, find_method
from comigs.prepare.settings import Settings
from comigs.schema.byfile import entries_of
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
    entries_of.cache_clear()

    def make(entries, module=MODULE, name="helping_hand"):
        (tmp_path / f"{name}.py").write_text(module)
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entries)

    yield make
    entries_of.cache_clear()


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


def test_a_partitioner_that_fails_is_told_in_one_line(install, tmp_path):
    from comigs.prepare.prepare import prepare

    install(
        "[comigs.prepare.partitions]\nbad = failing:make\n", "def make(*a):\n    1 / 0", "failing"
    )
    (tmp_path / "lines.txt").write_text("\n".join(f"example {i}" for i in range(12)))
    with pytest.raises(BadInput, match=r"--partition bad cannot be used: .*division by zero"):
        prepare(
            str(tmp_path / "lines.txt"),
            tmp_path / "out",
            Settings(clients=2, partition="bad"),
            lambda *told: None,
        )


def test_a_name_that_is_taken_is_refused(install):
    install("[comigs.aggregation]\nmean = helping_hand\n")
    with pytest.raises(BadInput, match=r"helping_hand, which helping_hand adds, is called 'mean'"):
        find_aggregator("mean")


def test_a_method_has_the_name_of_its_entry_and_replaces_nothing(install):
    module = MODULE.replace('Method("shout"', 'Method("fedavg"')
    install("[comigs.methods]\nmine = copied\n", module, "copied")
    with pytest.raises(BadInput, match=r"adds method 'mine', whose METHOD is called 'fedavg'"):
        all_methods()
    assert find_method("fedavg").paper == "arXiv 1602.05629"


def test_a_package_that_defines_nothing_is_told_when_it_is_asked_for(install):
    install("[comigs.methods]\nempty = hollow\n", "", "hollow")
    assert find_method("local").name == "local"
    with pytest.raises(BadInput, match=r"hollow does not define METHOD"):
        find_method("empty")


def test_what_cannot_be_loaded_is_told_with_the_package(install):
    install("[comigs.methods]\nloud = broken\n", "import nothing_of_this_name", "broken")
    with pytest.raises(BadInput, match=r"which broken adds, cannot be loaded: .*nothing_of"):
        all_methods()
