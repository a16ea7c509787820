"""The rules that hold for every source file: who may import whom, no pickles, no long files."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import comigs

ROOT = Path(__file__).parents[1]
MAX_LINES = 300
FORBIDDEN = {
    "comigs": {"flwr", "ray", "clients", "server", "experiments"},
    "clients": {"ray", "server", "peft", "transformers", "experiments"},
    "server": {"ray", "clients", "peft", "transformers", "experiments"},
}
ALLOWED_ALL_THE_SAME = {"server.grids": {"clients"}, "server.grids.ray": {"ray"}}
ALLOWED_IN_FUNCTIONS = {"comigs.api": {"clients", "server"}, "comigs.cli": {"clients", "server"}}
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
UNPICKLING = {"torch.load", "torch.serialization.load"}


def violations(module: str, source: str) -> list[str]:
    """What `source`, the text of `module` ("server.grids.ray"), does that it may not."""
    forbidden = FORBIDDEN.get(module.split(".")[0], set()) - _exempt(ALLOWED_ALL_THE_SAME, module)
    forbidden_in_functions = forbidden - _exempt(ALLOWED_IN_FUNCTIONS, module)
    tree = ast.parse(source)
    aliases = {}
    found = []
    for line, name, alias, deferred in _imports(tree):
        aliases[alias] = name
        package = name.split(".")[0]
        if package in (forbidden_in_functions if deferred else forbidden) | UNPICKLERS:
            found.append(f"{module}:{line} imports {package}")
    for node in ast.walk(tree):
        if (name := _dotted(node, aliases)) in UNPICKLING:
            found.append(f"{module}:{node.lineno} uses {name}")
    return found


def _exempt(table: dict[str, set[str]], module: str) -> set[str]:
    return {
        name
        for prefix, names in table.items()
        if f"{module}.".startswith(f"{prefix}.")
        for name in names
    }


def _imports(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[int, str, str, bool]]:
    """(line, full name, name it is bound to, not run when the module is imported)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                root = item.name.split(".")[0]
                yield node.lineno, item.name if item.asname else root, item.asname or root, deferred
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


def _sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", ["comigs", "clients", "server", "experiments"])
def test_package_keeps_the_rules(package):
    paths = list(_sources(package))
    assert paths
    assert [v for p in paths for v in violations(_module(p), p.read_text("utf-8"))] == []


def test_no_source_file_is_long():
    paths = _sources("comigs", "clients", "server", "experiments", "docker", "tests")
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in paths}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("comigs.experts", "import flwr"),
        ("comigs.experts", "def f():\n    from ray.util import queue"),
        ("comigs.data.tokens", "import clients.app as app"),
        ("comigs.experts", "def f():\n    from server import loop"),
        ("comigs.experts", "if TYPE_CHECKING:\n    from flwr.app import Message"),
        ("comigs.experts", "importlib.import_module('flwr.app')"),
        ("comigs.api", "from server.loop import run_rounds"),
        ("comigs.cli.run", "try:\n    import server\nexcept ImportError:\n    pass"),
        ("comigs.cli.run", "def f():\n    import ray"),
        ("comigs.client", "def f():\n    import server"),
        ("clients.app", "from peft import PeftModel"),
        ("clients.app", "def f():\n    import server.grids"),
        ("server.loop", "import transformers"),
        ("server.loop", "from clients.app import app"),
        ("server.grids.inline", "import ray"),
        ("server.grids.rays", "import ray"),
        ("comigs.state", "from pickle import loads"),
        ("experiments.recipes.x", "import numpy, dill"),
        ("comigs.state", "import torch as t\nx = t.load"),
        ("comigs.state", "import torch.nn\nx = torch.load"),
        ("comigs.state", "from torch.serialization import load\nload('x')"),
    ],
)
def test_checker_sees(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("comigs.experts", "import torch\nfrom peft import LoraConfig\nfrom comigs import errors"),
        ("comigs.api", "def f():\n    from server.loop import run_rounds"),
        ("comigs.cli", "def f():\n    import server"),
        ("comigs.cli.run", "if TYPE_CHECKING:\n    from server.journal import Journal"),
        ("clients.app", "import flwr.app\nfrom comigs.state import load"),
        ("server.grids", "def f():\n    from clients.app import app"),
        ("server.grids.ray", "import ray.exceptions\nfrom clients.app import app"),
        ("experiments.benchmarks.x", "import ray, flwr, server"),
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
