"""What other systems lack is not needed to start: seen with those modules and calls taken away."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import LIBRARIES, QUIET, ROOT

pytest_plugins = ("tests.fixtures",)
UNIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
HOMES = (ROOT / "comigs", ROOT / "clients" / "comigs_clients", ROOT / "server" / "comigs_server")
FILES = sorted(path for home in HOMES for path in home.rglob("*.py"))


def imported_at_once(tree):
    """Names of the modules that are imported when the file is."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_at_once(node)


def test_no_file_needs_a_unix_to_be_imported():
    assert len(FILES) > 150
    found = {
        str(path.relative_to(ROOT)): names
        for path in FILES
        if (names := UNIX & set(imported_at_once(ast.parse(path.read_text("utf-8")))))
    }
    assert found == {}


ELSEWHERE = f"""{LIBRARIES}import importlib, json, os, pathlib, signal, sys, types
import flwr.app, flwr.clientapp, flwr.serverapp, matplotlib.figure
import rich.console, scipy.stats, typer, psutil, jinja2, yaml, multiprocessing.connection
from comigs.backbone.base import load_base
load_base("comigs-tiny", "float32")  # the libraries load what they need of this system
for name in ["comigs", "comigs_clients", "comigs_server"]:
    for each in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[each]
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
for name in ("sched_getaffinity", "getuid", "getgid", "chown", "killpg", "O_NOFOLLOW", "O_NONBLOCK"):
    delattr(os, name)
held = set()
def locking(handle, mode, size):
    if handle in held:
        raise PermissionError(13, "held")
    held.add(handle)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.platform = "win32"
import comigs
from comigs.errors import BadInput
result = comigs.run(json.loads(sys.argv[2]), out=sys.argv[3])
print(len(result.table), len(held), "bitsandbytes.functional" in sys.modules)
for settings in (["engine=ray"], ["server.round_timeout=9"]):
    try:
        comigs.run(json.loads(sys.argv[2]), settings)
    except BadInput as error:
        print(error)
from comigs.deploy.project import init_project
try:
    init_project(pathlib.Path(sys.argv[3] + "-project"), 2, None, "multilingual", 9, 8000)
except BadInput as error:
    print(error)
"""  # noqa: E501


@pytest.mark.slow
def test_a_run_needs_nothing_that_only_unix_has(tree, tmp_path):
    tree = tree | {"rounds": 1, "local_steps": 1}
    paths = os.pathsep.join(str(home.parent) for home in HOMES)
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(sorted(UNIX - {"posix"}))]
    done = subprocess.run(
        [*command, json.dumps(tree), str(tmp_path / "run")],
        env=os.environ | QUIET | {"PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run, ray, timeout, deploy = done.stdout.splitlines()[-4:]
    assert run == "3 1 False"
    assert ray == "engine.name is ray, which does not run on Windows; use inline"
    assert timeout == "server.round_timeout cannot be kept on Windows; set it to null"
    assert deploy == "comigs deploy needs Linux or macOS; this is win32"
    assert not Path(f"{tmp_path / 'run'}-project").exists()
