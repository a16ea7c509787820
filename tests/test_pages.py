"""Every command of the docs runs; those of the README have tests of their own."""

import pytest

from tests.documented import README, ROOT, check, commands

pytest_plugins = ("tests.fixtures", "tests.place")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_plans")]

PAGES = (
    *("tutorial", "data", "simulate", "settings", "privacy", "methods", "results", "costs"),
    *("export", "talk"),
)
TEXT = "\n".join((ROOT / "docs" / f"{name}.md").read_text() for name in PAGES)
ELSEWHERE = commands(README)


@pytest.mark.parametrize(
    "arguments", [each for each in commands(TEXT) if each not in ELSEWHERE], ids=" ".join
)
def test_commands_of_the_docs_run(arguments, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    check(arguments, tmp_path / "out")
