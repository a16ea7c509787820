"""Synthetic run folders for pages about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comigs.config.load import dump_yaml
from comigs.config.settings import RunConfig
from comigs.store.eventjson import to_object
from tests.samples import final as final_of
from tests.samples import round_done, trained

Make = Callable[..., Path]


def client(number: int, of: int, name: str, **more: Any) -> dict[str, Any]:
    learnt = {"loss": 5.0 - number, "valid_ppl": 300.0 / number}
    return to_object(trained(number, of, name, **learnt)) | more


def whole(number: int, **more: Any) -> dict[str, Any]:
    return to_object(round_done(number)) | more


def final(number: int, name: str, **more: Any) -> dict[str, Any]:
    return to_object(final_of(number, name)) | more


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def run(
        name: str = "mine", names: tuple[str, ...] = ("de", "fr"), end: bool = True, **config: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(dump_yaml(RunConfig(rounds=2, **config)))
        (folder / "environment.json").write_text('{"cores": 7, "packages": {"torch": "2.13.0"}}')
        events: list[dict[str, Any]] = [
            {"event": "start", "method": "comigs", "clients": names, "rounds": 2, "round": 0},
            *(client(1, i, n) for i, n in enumerate(names)),
            whole(1),
        ]
        if end:
            events += [client(2, i, n) for i, n in enumerate(names)]
            events += [whole(2), *(final(i, n) for i, n in enumerate(names))]
            events += [{"event": "end", "seconds": 20.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
        return folder

    return run


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def append(folder: Path, *events: dict[str, Any]) -> None:
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
