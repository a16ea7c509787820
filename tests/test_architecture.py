"""The rules that hold for every source file: who may import whom, no pickles, no long files."""

import ast
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import comigs

ROOT = Path(__file__).parents[1]
HOMES = {"comigs": "comigs", "comigs_clients": "clients", "comigs_server": "server"}
MAX_LINES, MEDIAN_LINES = 300, 120
ORDER = (  # of the rooms, lowest first: a file imports from its own room and from those above it
    ("comigs.errors", "comigs.lean", "comigs.seeds", "comigs.version"),
    ("comigs.cores", "comigs.hardware", "comigs.heap", "comigs.memory", "comigs.threads"),
    ("comigs.store",),
    ("comigs.schema",),
    ("comigs.traces",),
    ("comigs.config",),
    ("comigs.backbone",),
    ("comigs.data",),
    ("comigs.prepare",),
    ("comigs.mixture.routers",),
    ("comigs.mixture",),
    ("comigs.evaluation",),
    ("comigs.messages",),
    ("comigs.aggregation",),
    ("comigs.methods",),
    ("comigs.federation",),
    ("comigs.training.optimizers", "comigs.training.schedules"),
    ("comigs.training",),
    ("comigs.influence",),
    ("comigs.local",),
    ("comigs.costs",),
    ("comigs.report",),
    ("comigs.report.page",),
    ("comigs.track",),
    ("comigs_clients",),
    ("comigs_server.grids",),
    ("comigs_server.fleet",),
    ("comigs_server.combine", "comigs_server.timing"),
    ("comigs_server.checks",),
    ("comigs_server",),
    ("comigs.talk",),
    ("comigs.use",),
    ("comigs.export",),
    ("comigs.serve",),
    ("comigs.deploy",),
    ("comigs.app",),
    ("comigs.app.suites",),
    ("comigs.cli.base",),
    ("comigs.cli.results",),
    ("comigs.cli",),
    ("comigs", "comigs.__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
KNOWS = {  # who may import what is not everybody's
    "flwr": ("comigs_clients", "comigs_server"),
    "ray": ("comigs_server.grids.ray",),
    "datasets": ("comigs.prepare", "comigs.use.questions"),
    "flwr_datasets": ("comigs.prepare",),
    "experiments": (),
    "comigs_clients": ("comigs_clients", "comigs_server.grids", "comigs.app", "comigs.cli"),
}
# What starts runs knows the two apps in functions only: a command is there before it loads them.
LATE = ("comigs.app", "comigs.cli")
AT_ONCE = ("comigs.app.submission",)
KNOWS_NOT = {"peft": ("comigs_clients", "comigs_server")}
KNOWS_NOT["transformers"] = KNOWS_NOT["peft"]
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
UNPICKLING = {"torch.load", "torch.serialization.load"}
FEW_PLACES = {  # what only these files may use
    "torch.set_num_threads": {"comigs.threads"},
    "torch.cuda.is_available": {"comigs.hardware"},
    # What a configuration names is looked up once, and a run is resolved where it is read.
    "comigs.aggregation.find_aggregator": {"comigs.federation.run"},
    "comigs.methods.find_method": {
        "comigs.app.early",
        "comigs.app.suites.suite",
        "comigs.federation.run",
    },
    "comigs.federation.run.resolve": {
        "comigs.costs.fit",  # with what its devices can hold
        "comigs.costs.footprint",
        "comigs.use.generate",
        "comigs.app.join",
        "comigs.app.measure",
        "comigs.app.result",
        "comigs.app.run",
        "comigs.app.start",
        "comigs_clients.app",
        "comigs_server.app",
    },
    "*.for_client": {"comigs.config.settings", "comigs.federation.run"},
}


def violations(module: str, source: str) -> list[str]:
    """What `source`, the text of `module` ("comigs_server.grids.ray"), does that it may not."""
    tree = ast.parse(source)
    aliases = {}
    found = []
    for line, name, alias, deferred in _imports(tree):
        aliases[alias] = alias if name.startswith(f"{alias}.") else name
        package = name.split(".")[0]
        if package in UNPICKLERS:
            found.append(f"{module}:{line} imports {package}")
        if package in HOMES and FLOOR[_room(name)] > FLOOR[_room(module)]:
            found.append(f"{module}:{line} imports {name}, which is below it")
        elif package in KNOWS and not any(_within(module, room) for room in KNOWS[package]):
            found.append(f"{module}:{line} imports {package}")
        if package in ("comigs_clients", "comigs_server") and not deferred:
            late = any(_within(module, room) for room in LATE)
            if late and not any(_within(module, room) for room in AT_ONCE):
                found.append(f"{module}:{line} imports {package} at once")
        if any(_within(module, room) for room in KNOWS_NOT.get(package, ())):
            found.append(f"{module}:{line} imports {package}")
    for node in ast.walk(tree):
        name = _dotted(node, aliases)
        kept = FEW_PLACES.get(name) or FEW_PLACES.get(f"*.{name.rpartition('.')[2]}")
        if name in UNPICKLING or (kept and module not in kept):
            found.append(f"{module}:{node.lineno} uses {name}")
    return found


def _within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def _room(module: str) -> str:
    return max((room for room in FLOOR if _within(module, room)), key=len)


def _imports(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[int, str, str, bool]]:
    """(line, full name, name it is bound to, not run when the module is imported)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                root = item.name.split(".")[0]
                yield node.lineno, item.name, item.asname or root, deferred
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for item in node.names:
                bound = item.asname or item.name
                yield node.lineno, f"{node.module}.{item.name}", bound, deferred
        elif name := _imported_by_call(node):
            yield node.lineno, name, "", deferred
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from _imports(node, deferred or function or typing)


def _imported_by_call(node: ast.AST) -> str:
    """`importlib.import_module("flwr.app")` -> "flwr.app"; "" for anything else."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name("import_module" | "__import__"),
            args=[ast.Constant(str(name)), *_],
        ):
            return name
    return ""


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """`t.load` with {"t": "torch"} -> "torch.load"."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, aliases)}.{node.attr}"
    return aliases.get(node.id, "") if isinstance(node, ast.Name) else ""


def _sources() -> dict[str, Path]:
    """Every file of the three packages, by the name of its module."""
    found = {}
    for package, home in HOMES.items():
        top = ROOT if home == package else ROOT / home
        for path in sorted((top / package).rglob("*.py")):
            module = ".".join(path.relative_to(top).with_suffix("").parts)
            found[module.removesuffix(".__init__")] = path
    return found


def test_every_file_keeps_the_rules():
    sources = _sources()
    assert len(sources) > 150
    assert [v for m, path in sources.items() for v in violations(m, path.read_text("utf-8"))] == []


def test_no_two_files_import_each_other_in_a_circle():
    sources = _sources()
    arrows = {
        module: {
            next((n for n in (name, name.rpartition(".")[0]) if n in sources), module)
            for _, name, _, _ in _imports(ast.parse(path.read_text("utf-8")))
            if name.split(".")[0] in HOMES
        }
        - {module}
        for module, path in sources.items()
    }
    while free := {module for module, others in arrows.items() if not others & set(arrows)}:
        arrows = {module: others for module, others in arrows.items() if module not in free}
    assert sorted(arrows) == []


def test_every_room_is_on_the_list_and_of_a_size_to_be_seen_at_once():
    rooms: dict[str, int] = {}
    for module in _sources():
        rooms[_room(module)] = rooms.get(_room(module), 0) + 1
    assert {room for room in FLOOR if room not in rooms} == set()
    assert {r: n for r, n in rooms.items() if n > 13 and r != "comigs.methods"} == {}
    loose = {m for m in _sources() if _room(m) == "comigs"}
    assert loose == {"comigs"}, "a file of comigs that is in no room"


def test_source_files_are_short():
    folders = ("comigs", "clients", "server", "experiments", "docker", "tests", "docs")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in paths}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}
    own = [len(path.read_text("utf-8").splitlines()) for path in _sources().values()]
    assert statistics.median(own) <= MEDIAN_LINES


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("comigs.mixture.experts", "import flwr"),
        ("comigs.local.round", "def f():\n    from ray.util import queue"),
        ("comigs.data.tokens", "import comigs_clients.app as app"),
        ("comigs.mixture.experts", "def f():\n    from comigs_server import loop"),
        ("comigs.mixture.experts", "if TYPE_CHECKING:\n    from flwr.app import Message"),
        ("comigs.mixture.experts", "importlib.import_module('flwr.app')"),
        ("comigs.mixture.experts", "if TYPE_CHECKING:\n    from comigs.methods import base"),
        ("comigs.config.load", "def f():\n    from comigs.backbone.base import load_base"),
        ("comigs.config.load", "import comigs"),
        ("comigs.errors", "from comigs.store import plain"),
        ("comigs.cli.run", "def f():\n    import ray"),
        ("comigs.app.run", "import experiments.recipes"),
        ("comigs.app.run", "from comigs.cli import base"),
        ("comigs_clients.app", "from peft import PeftModel"),
        ("comigs_clients.app", "def f():\n    import comigs_server.grids"),
        ("comigs_server.loop", "import transformers"),
        ("comigs_server.loop", "from comigs_clients.app import app"),
        ("comigs.app.run", "from comigs_server.loop import run_rounds"),
        ("comigs.cli.run", "try:\n    import comigs_server\nexcept ImportError:\n    pass"),
        ("comigs.deploy.check", "import flwr"),
        ("comigs.app.submission", "def f():\n    import flwr"),
        ("comigs_server.grids.inline", "import ray"),
        ("comigs_server.grids.rays", "import ray"),
        ("comigs_server.grids.inline", "from comigs_server.fleet.judge import judge"),
        ("comigs.store.state", "from pickle import loads"),
        ("comigs.app.run", "import numpy, dill"),
        ("comigs.store.state", "import torch as t\nx = t.load"),
        ("comigs.local.round", "import torch\ntorch.set_num_threads(1)"),
        ("comigs.backbone.base", "import torch\ntorch.cuda.is_available()"),
        ("comigs.local.round", "from comigs.methods import find_method\nfind_method('local')"),
        ("comigs.costs.work", "import comigs.methods as m\nm.find_method('local')"),
        ("comigs_server.loop", "from comigs.federation.run import resolve as r\nr(config)"),
        ("comigs.local.round", "def f(run):\n    return run.config.for_client(1)"),
        ("comigs.store.state", "import torch.nn\nx = torch.load"),
        ("comigs.store.state", "from torch.serialization import load\nload('x')"),
    ],
)
def test_checker_sees(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "comigs.mixture.experts",
            "import torch\nfrom peft import A\nimport comigs.errors",
        ),
        ("comigs.app.run", "def f():\n    from comigs_server.loop import run_rounds"),
        ("comigs.cli", "def f():\n    import comigs_server"),
        ("comigs.cli.run", "if TYPE_CHECKING:\n    from comigs_server.journal import Journal"),
        ("comigs_clients.app", "import flwr.app\nfrom comigs.store.state import load"),
        ("comigs_server.grids", "def f():\n    from comigs_clients.app import app"),
        ("comigs_server.grids.ray", "import ray.exceptions\nfrom comigs_clients.app import app"),
        ("comigs_server.loop", "from comigs_server.fleet import registry"),
        ("comigs.data", "from .server import thing"),
        ("comigs.data", "import json, torch\njson.load(f)\nmodel.torch.load('x')"),
    ],
)
def test_checker_lets_pass(module, source):
    assert violations(module, source) == []


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == comigs.__version__
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    locked = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {each.name.lower(): str(each.specifier).removeprefix("==") for each in locked}
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert versions[wanted.name.lower()] in wanted.specifier, text
