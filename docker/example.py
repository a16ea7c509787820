"""Write docker/compose.yaml, an example to read: python -m docker.example."""

from pathlib import Path

from comigs.deploy.compose import compose_text
from comigs.deploy.fleet import Device, Fleet

INTRO = (
    "An example to read: what `comigs deploy init DIR --clients 2` writes, with two unequal\n"
    "# devices. That command also makes the certificates, keys and folders mounted below."
)
DEVICES = (
    Device("anna", "laptop", 8.0, 8_000_000_000),
    Device("ben", "board", 1.13, 3_000_000_000),
)


def example() -> str:
    fleet = Fleet("10001:10001", 8000, 365, "my-texts", DEVICES)
    return compose_text(fleet, "comigs-example", "..", INTRO)


if __name__ == "__main__":
    Path(__file__).with_name("compose.yaml").write_text(example(), encoding="utf-8")
