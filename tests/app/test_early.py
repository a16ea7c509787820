"""Mistakes that are told at once: no library is loaded for them."""

import logging
import subprocess
import sys

import pytest

from comigs.app.early import check_names
from comigs.config.load import load_config


@pytest.mark.slow
def test_a_mistake_is_told_before_libraries_load(tmp_path):
    mistakes = [
        ["run", "method=foo"],
        ["run", "data=multilingal"],
        ["run", "model=comigs-tny"],
        ["run", "clients=10"],
        ["run", "lr=0.1"],
        ["run", "nosuch.yaml"],
        ["run", "--resume", str(tmp_path)],
        ["plan", "method=foo"],
        ["compare", "nosuch"],
        ["compare", "table1", "clients=10"],
        ["generate", str(tmp_path), "a"],
        ["export", str(tmp_path), "--to", str(tmp_path / "to")],
        ["report", str(tmp_path)],
    ]
    script = f"""
        import sys
        from comigs.cli.commands import main
        for arguments in {mistakes}:
            sys.argv = ["comigs", *arguments]
            try:
                main()
            except SystemExit as end:
                assert end.code, arguments
            heavy = {{"torch", "transformers", "peft", "flwr", "ray"}} & set(sys.modules)
            assert not heavy, (arguments, heavy)
    """
    lines = [line[8:] for line in script.splitlines()]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("comigs: ") == len(mistakes)


def test_data_beside_the_texts_that_is_not_read_is_named(tmp_path, caplog):
    for name in ("ana.txt", "bo.csv", "cy.json", ".hidden.csv", "clients.md", "di.txt.gz"):
        (tmp_path / name).write_text("text\n")
    with caplog.at_level(logging.WARNING, "comigs"):
        check_names(load_config(None, [f"data={tmp_path}"]))
    assert "bo.csv is not read (2 such files)" in caplog.text
    assert "di.txt.gz is not read (1 such files); unpack them, or use xz" in caplog.text
    caplog.clear()
    check_names(load_config())
    assert not caplog.text
