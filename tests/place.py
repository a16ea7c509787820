"""Where the commands of README and docs are run: what they name is there."""

import json
import re
import shutil

import pytest

from comigs.backbone.names import BUNDLED
from tests.documented import ROOT, run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the user's own text and model, and two finished runs."""
    place = tmp_path_factory.mktemp("readme")
    (place / "my-folder").mkdir()
    for client in ("anna", "ben"):
        text = "".join(f"{client} wrote line {i} of this text.\n" for i in range(600))
        (place / "my-folder" / f"{client}.txt").write_text(text)
    shutil.copy(place / "my-folder" / "anna.txt", place / "new.txt")
    shutil.copytree(BUNDLED / "comigs-tiny", place / "my-model")
    shutil.copytree(place / "my-folder", place / "authors")
    with (place / "chats.jsonl").open("w") as chats, (place / "qa.csv").open("w") as answers:
        answers.write("question,answer\n")
        for i in range(400):
            turns = [("user", f"What is {i} + {i}?"), ("assistant", f"{i} + {i} is {2 * i}.")]
            messages = [{"role": role, "content": content} for role, content in turns]
            chat = {"user": f"u{i % 2}", "topic": "abc"[i % 3], "messages": messages}
            chats.write(json.dumps(chat) + "\n")
            answers.write(f"{turns[0][1]},{turns[1][1]}\n")
    question = {"question": "Il sole", "choices": ["e la luna", "non c'è"], "answer": 0}
    (place / "questions.jsonl").write_text(json.dumps(question) + "\n")
    run(
        ["data", "prepare", str(place / "chats.jsonl"), "--by", "user", "--out", ""],
        place / "my-data",
    )
    simulate = (ROOT / "docs" / "simulate.md").read_text()
    (mine,) = re.findall(r"```yaml\n(devices:.*?)```", simulate, re.DOTALL)
    (place / "mine.yaml").write_text(mine)
    run(["devices", "traces", "--clients", "4", "--out", str(place / "traces.json")], place)
    run(["run"], place / "FOLDER")
    for name in ("FOLDER1", "FOLDER2", "runs/first", "runs/second"):
        shutil.copytree(place / "FOLDER", place / name)
    return place
