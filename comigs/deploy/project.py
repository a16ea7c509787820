"""Making a deployment's folder, adding a client to it, and renewing its keys."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from comigs.data.corpus import ROSTER, check_sizes, client_names, federation_folder
from comigs.data.names import EXAMPLES, SUFFIXES, name_of, paths_of, texts_in
from comigs.deploy.compose import checkout, compose_text
from comigs.deploy.files import POLICY, write_bundle, write_files
from comigs.deploy.fleet import (
    DEFAULT_MIX,
    IMAGE_USER,
    Device,
    Fleet,
    check_names,
    load_fleet,
    make_device,
    make_devices,
)
from comigs.deploy.keys import write_certificates, write_node_key, write_secret
from comigs.deploy.kubernetes import KUSTOMIZATION, write_kubernetes
from comigs.errors import BadInput
from comigs.federation.policy import FILE
from comigs.schema.rules import require

HOSTS = ("superlink", "localhost", "127.0.0.1")
MOST_CLIENTS, MOST_DAYS = 10_000, 36_500


def init_project(
    folder: Path, clients: int, profiles: str | None, data: str, days: int, port: int
) -> Fleet:
    """Write a new compose project.

    Args:
        folder: new, or empty.
        clients: how many of the data's clients, in the order of their names.
        profiles: see `make_devices`.
        data: bundled federation, or a folder with one text per client.
        days: lifetime of certificates.
        port: of the SuperLink on this machine.

    Raises:
        BadInput: before anything is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder; give another one")
    require(1 <= clients <= MOST_CLIENTS, "--clients", clients, f"from 1 to {MOST_CLIENTS}")
    require(1 <= days <= MOST_DAYS, "--days", days, f"from 1 to {MOST_DAYS}")
    require(1 <= port <= 65535, "--port", port, "between 1 and 65535")
    names = client_names(data)[:clients]
    if len(names) < clients:
        raise BadInput(
            f"--clients is {clients}; {data!r} has text for {len(names)}, "
            "give a folder with more of it by --data"
        )
    check_sizes(data, names)
    devices = make_devices(names, profiles)
    check_names(devices)
    fleet = Fleet(_user(), port, days, str(federation_folder(data).resolve()), devices)
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, port)
    folder.chmod(0o700)
    (folder / "models").mkdir()
    for part in ("data", "state", "runs"):
        _private(folder / "server" / part)
    for device in devices:
        _add_device(folder, device, federation_folder(data))
    _write_server_keys(folder, fleet)
    _save(folder, fleet)
    return fleet


def add_client(folder: Path, text: Path | None, profile: str | None) -> Device:
    """Add one client to a project; the others keep their numbers, keys and state.

    Args:
        text: its text, a file or a folder as `--data` holds them; None: the next of that data.
        profile: of its device; None: the next of the default mix.

    Raises:
        BadInput: before anything is written.
    """
    fleet = load_fleet(folder)
    known = [device.name for device in fleet.devices]
    if text is None:
        source = Path(fleet.data)
        left = [name for name in client_names(fleet.data) if name not in known]
        if not left:
            raise BadInput(f"{fleet.data} has text for no other client; give one with --text")
        name = left[0]
    else:
        source, name = text.parent, name_of(text, SUFFIXES + EXAMPLES)
        if not text.exists():
            raise BadInput(f"--text is {str(text)!r}, which does not exist")
        if name in known:
            raise BadInput(f"--text is {str(text)!r}; there is a client {name!r} already")
    check_sizes(str(source), [name])
    device = make_device(name, profile or DEFAULT_MIX[len(known) % len(DEFAULT_MIX)])
    fleet = replace(fleet, devices=(*fleet.devices, device))
    check_names(fleet.devices)
    _add_device(folder, device, source)
    _save(folder, fleet)
    return device


def rotate(folder: Path, days: int | None) -> Fleet:
    """Renew the certificates, the secrets and the devices' keys of a project.

    Args:
        days: lifetime of the new certificates; None: as before.

    Raises:
        BadInput: when the folder is not a project.
    """
    fleet = load_fleet(folder)
    good = days is None or 1 <= days <= MOST_DAYS
    require(good, "--days", days, f"from 1 to {MOST_DAYS}")
    fleet = replace(fleet, days=days or fleet.days)
    for device in fleet.devices:
        _write_device_keys(device_folder(folder, device))
    _write_server_keys(folder, fleet)
    _save(folder, fleet)
    return fleet


def device_folder(folder: Path, device: Device) -> Path:
    """Where the keys, text and state of one device are."""
    return folder / "devices" / device.slug


def _add_device(folder: Path, device: Device, source: Path) -> None:
    own = device_folder(folder, device)
    for part in ("data", "state", "keys"):
        _private(own / part)
    _copy_text(source, device.name, own / "data")
    _write_device_keys(own)


def _write_device_keys(own: Path) -> None:
    write_node_key(own / "keys")
    write_secret(own / "keys" / "superexec.secret")


def _write_server_keys(folder: Path, fleet: Fleet) -> None:
    write_certificates(folder / "ca", folder / "server" / "keys", HOSTS, fleet.days)
    write_secret(folder / "server" / "keys" / "superexec.secret")


def _save(folder: Path, fleet: Fleet) -> None:
    """Write what follows from the fleet and this comigs: names, bundle, compose.yaml, ownership."""
    write_bundle(folder)
    names = [device.name for device in fleet.devices]
    places = [folder / "server", *(device_folder(folder, device) for device in fleet.devices)]
    for device in fleet.devices:
        _write_policy(device_folder(folder, device) / "data" / FILE, device)
    for place in places:
        (place / "data" / ROSTER).write_text(json.dumps(names) + "\n", encoding="utf-8")
    text = compose_text(fleet, folder.resolve().name, checkout())
    (folder / "compose.yaml").write_text(text, encoding="utf-8")
    if (folder / KUSTOMIZATION).is_file():
        write_kubernetes(folder, fleet)
    fleet.save(folder)
    if hasattr(os, "getuid") and os.getuid() == 0:
        uid, gid = (int(part) for part in fleet.user.split(":"))
        _hand_over([*places, folder / "ca"], uid, gid)


def _write_policy(path: Path, device: Device) -> None:
    """The device's policy, unless its owner has written one."""
    if not path.exists():
        path.write_text(POLICY.format(threads=max(8, device.threads)), encoding="utf-8")
        path.chmod(0o600)


def _hand_over(places: Sequence[Path], uid: int, gid: int) -> None:
    """Containers do not run as root: what root wrote becomes their user's."""
    for place in places:
        for path in (place, *place.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


def _user() -> str:
    """User and group of what is written, as Docker names them."""
    if not hasattr(os, "getuid"):
        raise BadInput(f"comigs deploy needs Linux or macOS; this is {sys.platform}")
    if os.getuid() == 0:
        return f"{IMAGE_USER}:{IMAGE_USER}"
    return f"{os.getuid()}:{os.getgid()}"


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    folder.chmod(0o700)


def _copy_text(source: Path, name: str, to: Path) -> None:
    """Copy one client's text: its folder of splits, or its file."""
    whole = source / name
    if whole.is_dir():
        (to / name).mkdir(mode=0o700)
        to, paths = to / name, [path for _, path in texts_in(whole, SUFFIXES + EXAMPLES)]
    else:
        paths = paths_of(source / name, SUFFIXES + EXAMPLES)
    for path in paths:
        shutil.copyfile(path, to / path.name)
        (to / path.name).chmod(0o600)
