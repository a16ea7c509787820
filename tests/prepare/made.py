"""Small data sets, and what `comigs data prepare` makes of them."""

import json

from comigs.prepare.prepare import prepare
from comigs.prepare.settings import Settings


def jsonl(path, rows):
    """Write one object a line; a text is a line as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def numbered(count, **columns):
    """Rows with the texts `text 0`, `text 1`, ...; a column's list is used in turn."""
    return [
        {"text": f"text {i}"} | {name: values[i % len(values)] for name, values in columns.items()}
        for i in range(count)
    ]


def prepared(source, out, **settings):
    return prepare(str(source), out, Settings(**settings), lambda *_: None)


def texts(folder, client, split):
    """The examples of one split; theirs have no blank lines."""
    text = (folder / client / f"{split}.txt").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n\n")


def everything(folder, client):
    return [text for split in ("train", "valid", "test") for text in texts(folder, client, split)]
