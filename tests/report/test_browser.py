"""The page in a real browser: its controls work, and nothing is told on the console."""

import json
import re
import shutil
import subprocess

import pytest

from comigs.report.page import write_report
from comigs.use.alike import compare_experts
from comigs.use.looks import look_at

pytest_plugins = ("tests.fixtures",)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
PROBE = """<script>
addEventListener("load", () => {
  const get = (id) => document.getElementById(id), seen = [], colours = () =>
    [...get("token-text").querySelectorAll(".token")].map((t) => t.style.cssText).join();
  const choose = (id, value) => {
    get(id).value = value;
    get(id).dispatchEvent(new Event("change"));
  };
  for (const client of get("token-client").options) {
    choose("token-client", client.value);
    choose("token-colour", get("token-colour").options[0].value);
    const text = get("token-text").textContent, before = colours();
    choose("token-layer", "0");
    choose("token-colour", "gain");
    const token = get("token-text").querySelectorAll(".token")[3];
    token.dispatchEvent(new Event("mouseenter"));
    const marked = get("token-detail").querySelectorAll("td.key").length;
    seen.push({text, marked, moved: colours() !== before, told: get("token-detail").textContent});
  }
  const all = (from, what) => [...from.querySelectorAll(what)];
  const alike = all(document, "figure.alike").map((figure) => {
    const look = () => all(figure, "svg g[id] path").map((path) => path.style.opacity).join();
    const before = look(), select = figure.querySelector("select");
    select.value = "1";
    select.dispatchEvent(new Event("change"));
    const numbers = all(figure, "svg g[id$=text]").map((group) => group.textContent.trim());
    const rows = all(figure, "tbody tr").map((row) => all(row, "td").map((c) => c.textContent));
    const table = rows.flatMap((row, i) => row.filter((_, j) => i !== j));
    return {moved: look() !== before, numbers, table, count: select.options.length};
  });
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.title = JSON.stringify({seen, alike, wide});
});
</script>"""


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    run = shutil.copytree(finished, place / "run")
    path = write_report([run], None, look_at([run], 32), compare_experts([run]))
    text = path.read_text("utf-8")
    text = text.replace(">cy<", f">{'cy' * 100}<")  # no name makes the page wider
    (place / "page.html").write_text(text.replace("</body>", PROBE + "</body>"), "utf-8")
    return place / "page.html"


def opened(page, width):
    """What the probe found, and the lines that the browser's console got."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--window-size={width},900", "--enable-logging=stderr", "--virtual-time-budget=5000",
        f"--user-data-dir={page.parent / 'profile'}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[:500]
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(
        title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    ), told


@pytest.mark.parametrize("width", [500, 1600])
def test_clients_and_layers_can_be_switched_without_an_error(page, width):
    found, told = opened(page, width)
    assert told == []
    assert len(found["seen"]) == 3
    assert len({each["text"] for each in found["seen"]}) == 3
    assert all("nats" in each["told"] for each in found["seen"])
    assert [each["marked"] for each in found["seen"]] == [0, 2, 4], "experts of the chosen layer"
    assert [each["moved"] for each in found["seen"]] == [False, True, True], "one has one colouring"
    assert not found["wide"], "the page is wider than the window"
    assert [each["count"] for each in found["alike"]] == [3, 3], "the mean and two layers"
    for each in found["alike"]:
        assert each["moved"] and each["numbers"] == each["table"]
    assert found["alike"][0]["numbers"].count("\u2013") == 4, "ana has no specialist"
