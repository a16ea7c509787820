"""Which SuperLink a run goes to: a connection in Flower's own config.toml."""

import os
import tomllib
from pathlib import Path
from typing import Any

from comigs.errors import BadInput


def connection(wanted: str | None) -> str:
    """Name of the connection to use.

    Args:
        wanted: `flower.superlink`; None for Flower's default.

    Raises:
        BadInput: there is no such connection, or it is Flower's simulation on this machine.
    """
    path = Path(os.environ.get("FLWR_HOME", "~/.flwr")).expanduser() / "config.toml"
    try:
        links: dict[str, Any] = tomllib.loads(path.read_text("utf-8")).get("superlink", {})
    except FileNotFoundError:
        links = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    name = wanted or links.get("default")
    link = links.get(str(name))
    address = link.get("address") if isinstance(link, dict) else None
    if not address or str(address).startswith(":"):
        given = f"flower.superlink is {wanted!r}" if wanted else f"Flower's default is {name!r}"
        raise BadInput(
            f"{given}, which is no SuperLink; put [superlink.{wanted or 'mine'}] with address and "
            f"root-certificates into {path}"
        )
    return str(name)
