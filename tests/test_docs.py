"""The docs site: it builds without a network, and has every method and every setting."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from comigs.config.settings import RunConfig
from comigs.methods import all_methods
from comigs.schema.fields import settings_of

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


class Text(HTMLParser):
    """The words of a page, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        loads = {"script": "src", "link": "href", "img": "src"}
        if tag in loads and (target := named.get(loads[tag])) and named.get("rel") != "canonical":
            self.loads.append(target)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / ".mkdocs.yml")]
    hidden = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [*command, "-d", str(folder)], env=os.environ | hidden, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_setting_is_on_its_page_with_what_it_means(site):
    text = " ".join("".join(Text(site / "settings.html").words).split())
    for setting in settings_of(RunConfig):
        assert setting.key in text
        assert setting.text, f"{setting.key} has no description"
        assert setting.text.replace("`", "") in text


def test_every_method_is_on_its_page(site):
    text = "".join(Text(site / "methods.html").words)
    for method in all_methods().values():
        assert method.name in text and method.summary in text


def test_every_page_is_reached_and_loads_nothing_from_elsewhere(site):
    listed = re.findall(r"(\w+\.md)", (ROOT / ".mkdocs.yml").read_text())
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    for page in site.glob("*.html"):
        for target in Text(page).loads:
            assert not target.startswith(("http", "//")), (page.name, target)
            if page.name != "404.html":
                assert (site / target.split("?")[0]).exists(), (page.name, target)
