"""The same deployment for a Kubernetes cluster, as a kustomize base."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from comigs.deploy.compose import compose_text, project_name, templates
from comigs.deploy.fleet import IMAGE_USER, Device, Fleet
from comigs.errors import BadInput
from comigs.version import __version__

KUSTOMIZATION = "kustomization.yaml"
FILES = (KUSTOMIZATION, "kubernetes.yaml")
LONGEST = 63  # characters of a name in a cluster
PORTS = {"superlink": 8000, "supernode": 9094}
WRITTEN = ("/state", "/runs")
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class Process:
    """A service of the compose project, as a pod sees it.

    Attributes:
        name: of the service.
        command: its words.
        environment: its variables.
        probe: words of the command that says whether it is healthy.
        calls: name of the process that it connects to; "" for none.
        port: where others connect to it; 0 for none.
        keys: files of the project that are in its /keys.
        lists: files of the project, without secrets, that are in its /data.
        volumes: what it keeps, by folder: "state", "runs", or the "data" of a device.
        device: whose limits it has; None: no limits.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    probe: tuple[str, ...]
    calls: str
    port: int
    keys: tuple[str, ...]
    lists: tuple[str, ...]
    volumes: tuple[str, ...]
    device: Device | None


def write_kubernetes(folder: Path, fleet: Fleet) -> None:
    """Write kustomization.yaml and kubernetes.yaml into a compose project.

    Raises:
        BadInput: when a name is too long for a cluster; before anything is written.
    """
    name = folder.resolve().name
    texts = {file: kubernetes_text(file, fleet, name) for file in FILES}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")


def kubernetes_text(file: str, fleet: Fleet, name: str) -> str:
    """The text of one of `FILES`.

    Args:
        file: which.
        fleet: who takes part.
        name: of the compose project.

    Raises:
        BadInput: when a name is too long for a cluster.
    """
    environment = templates()
    environment.filters["json"] = json.dumps
    return environment.get_template(f"{file}.j2").render(
        processes=list(_processes(fleet, name)),
        namespace=_named(re.sub("_+", "-", project_name(name)).strip("-")),
        image=f"comigs:{__version__}-cpu",
        user=IMAGE_USER,
        container=CONTAINER,
    )


def _processes(fleet: Fleet, name: str) -> Iterator[Process]:
    """One for each service of the compose project, which has the commands."""
    services = yaml.safe_load(compose_text(fleet, name, None))["services"]
    devices = {f"clientapp-{device.slug}": device for device in fleet.devices}
    for service, settings in services.items():
        yield _process(_named(service), settings, devices.get(service))


def _process(name: str, settings: dict[str, Any], device: Device | None) -> Process:
    kind, _, slug = name.partition("-")
    mounted = {
        target: source.removeprefix("./")
        for source, target, *_ in (volume.split(":") for volume in settings["volumes"])
    }
    lists = []
    if data := mounted.get("/data"):
        lists = [f"{data}/clients.json", *([f"{data}/device.yaml"] if device else [])]
    return Process(
        name=name,
        command=tuple(settings["command"]),
        environment=settings.get("environment", {}),
        probe=tuple(settings["healthcheck"]["test"][1:]),
        calls={"clientapp": f"supernode-{slug}", "superlink": ""}.get(kind, "superlink"),
        port=PORTS.get(kind, 0),
        keys=tuple(source for target, source in mounted.items() if target.startswith("/keys/")),
        lists=tuple(lists),
        volumes=(*(["data"] if device else []), *(t[1:] for t in mounted if t in WRITTEN)),
        device=device,
    )


def _named(name: str) -> str:
    if len(name) > LONGEST:
        raise BadInput(
            f"{name!r} has {len(name)} characters, and names in a cluster at most {LONGEST}; "
            "rename the text or folder that it comes from"
        )
    return name
