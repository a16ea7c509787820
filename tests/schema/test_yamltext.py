"""YAML that is written is read back as the same, and nothing in it is taken for something else."""

import pytest

from comigs.config.load import dump_yaml, load_config
from comigs.errors import BadInput


@pytest.mark.parametrize(
    "name", ["1e3", "010", "1_000", "yes", "true", "null", "2024-01-01", "1.5"]
)
def test_a_name_of_any_look_survives_the_file(name, tmp_path):
    config = load_config({"name": name})
    path = tmp_path / "my.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path) == config


def test_names_of_devices_are_text(tmp_path):
    path = tmp_path / "my.yaml"
    names = ["2024-01-01", "true", "50", "010", "null"]
    lines = "\n".join(f"    {name}: {{like: laptop}}" for name in names)
    path.write_text(f"devices:\n  define:\n{lines}\n")
    assert list(load_config(path).devices.define) == names


@pytest.mark.parametrize("written", ["!!int '1:30'", "!!python/name:os.system ''", "!x 3"])
def test_tags_are_refused(written, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(f"rounds: {written}\n")
    for args in ((path,), (None, [f"rounds={written}"])):
        with pytest.raises(BadInput, match="tags are not read"):
            load_config(*args)
