"""device.yaml: what a device's owner writes is read as it is meant, or is one clear line."""

import re
from pathlib import Path

import pytest

from comigs.deploy.files import POLICY
from comigs.errors import BadInput
from comigs.federation.policy import Policy, read_policy

ROOT = Path(__file__).parents[2]


def read(tmp_path, text):
    path = tmp_path / "device.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_policy(path)


def test_the_file_that_init_writes_holds_every_setting_and_its_default(tmp_path):
    text = POLICY.format(threads=256)
    assert read(tmp_path, text) == Policy(data=[str(tmp_path)])
    for field in Policy.__dataclass_fields__:
        assert f"\n{field}: " in text


def test_an_empty_file_is_the_defaults(tmp_path):
    assert read(tmp_path, "") == read(tmp_path, "# nothing") == Policy(data=[str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thread: 3", "unknown key thread; did you mean threads?"),
        ("threads: many", "threads is 'many'; expected a whole number"),
        ("threads: true", "threads is True"),
        ("threads: 0", "threads is 0; it must be between 1 and a million"),
        ("threads: null", "threads is null; give a value"),
        ("steps: 1000000000000000000000", "steps is 1000000000000000000000"),
        ("threshold: 1", "threshold is 1; it must be at least 2"),
        ("hours: .nan", "hours is nan"),
        ("tokens: -1", "tokens is -1"),
        ("tokens: 1" + "0" * 400, "tokens is"),
        ("require: tls", "require is 'tls'; expected none or secagg or dp or either"),
        ("methods: [comics]", "methods is 'comics'; it must be one of"),
        ("methods: []", "methods is []"),
        ("methods: comigs", "methods is 'comigs'"),
        ("data: /data", "data is '/data'"),
        ("- a", "expected `key: value` lines"),
        ("7", "expected `key: value` lines"),
        ("a: [", "line 1: not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        (b"\xff", "cannot be read (UnicodeDecodeError)"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path, text, words):
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "device.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_or_folder_is_one_line(tmp_path):
    (tmp_path / "device.yaml").mkdir()
    for path in (tmp_path / "none.yaml", tmp_path / "device.yaml"):
        with pytest.raises(BadInput, match=r"yaml"):
            read_policy(path)


def test_the_page_on_trust_names_every_setting_and_every_code():
    page = (ROOT / "docs" / "trust.md").read_text("utf-8")
    for field in Policy.__dataclass_fields__:
        assert f"`{field}`" in page
    files = [*(ROOT / "clients").rglob("*.py"), *(ROOT / "comigs").rglob("*.py")]
    codes = {c for p in files for c in re.findall(r'Refusal\("([a-z-]+)"', p.read_text("utf-8"))}
    assert len(codes) > 9
    assert [code for code in codes if f"`{code}`" not in page] == []
