"""The compose file of a deployment."""

import json
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from comigs.deploy.fleet import Fleet
from comigs.version import __version__

INTRO = (
    "A comigs federation. `comigs deploy` writes this file again when a client is added: put what\n"
    "# you change into compose.override.yaml, which docker compose reads after it."
)
TIMING = "interval: 15s\n      timeout: 30s\n      start_period: 300s"


def templates() -> Environment:
    """The templates of this package, in which what is not defined is an error."""
    return Environment(
        loader=PackageLoader("comigs.deploy", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def compose_text(fleet: Fleet, name: str, context: str | None, intro: str = INTRO) -> str:
    """The text of compose.yaml.

    Args:
        fleet: who takes part.
        name: of the compose project.
        context: folder to build the image from; None: the image is there already.
        intro: what the file says about itself; further lines start with "# ".
    """
    return (
        templates()
        .get_template("compose.yaml.j2")
        .render(
            fleet=fleet,
            name=project_name(name),
            version=__version__,
            context=context and json.dumps(context.replace("$", "$$")),
            intro=intro,
            timing=TIMING,
        )
    )


def project_name(folder: str) -> str:
    """A folder's name as docker compose accepts it for a project."""
    return re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).lstrip("_-") or "comigs"


def checkout() -> str | None:
    """The source tree that comigs runs from, if it holds the Dockerfile."""
    root = Path(__file__).resolve().parents[2]
    return str(root) if (root / "docker" / "Dockerfile").is_file() else None
