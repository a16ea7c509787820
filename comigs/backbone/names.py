"""Where a base model is, by its name; nothing is loaded."""

import difflib
from pathlib import Path

from comigs.errors import BadInput

BUNDLED = Path(__file__).parents[1] / "models"


def model_source(name: str) -> str:
    """Resolve a model name to the bundled folder, the user's folder, or a hub id.

    Raises:
        BadInput: for a folder without config.json, a GGUF file, or a path that does not exist.
    """
    for folder in (BUNDLED / name, Path(name).expanduser()):
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise BadInput(f"model.name {name!r}: the folder holds no config.json")
            return str(folder)
    if name.endswith(".gguf"):
        raise BadInput(
            f"model.name {name!r}: a GGUF file is converted to a folder once, with "
            f"python -m experiments.recipes.from_gguf {name} --to FOLDER"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"model.name {name!r}: there is no such folder")
    bundled = [path.name for path in BUNDLED.iterdir() if path.is_dir()]
    near = difflib.get_close_matches(name, bundled, 1, cutoff=0.75)
    if near and "/" not in name:
        raise BadInput(
            f"model.name {name!r}: there is no such folder, and no bundled model of that name; did "
            f"you mean {near[0]}?"
        )
    return name
