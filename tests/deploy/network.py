"""A device's own network: a namespace with an address, and a cable that can be pulled."""

import os
import subprocess
import warnings
from contextlib import suppress


class Network:
    """Use it in a `with` block. Where namespaces are not allowed, `inside` is empty.

    Attributes:
        inside: start of a command line that runs the rest in the namespace.
        host: address of this machine as it is seen from there.
    """

    def __init__(self) -> None:
        self._name = f"comigs{os.getpid()}"
        subnet = f"10.213.{os.getpid() % 250}"
        self.inside: list[str] = []
        self.host, self._own = f"{subnet}.1", f"{subnet}.2"

    def __enter__(self):
        try:
            _ip(f"netns add {self._name}")
            _ip(f"link add {self._name} type veth peer name eth0 netns {self._name}")
            _ip(f"addr add {self.host}/24 dev {self._name}")
            _ip(f"link set {self._name} up")
            for command in (
                "link set lo up",
                f"addr add {self._own}/24 dev eth0",
                "link set eth0 up",
            ):
                _ip(f"-n {self._name} {command}")
            _ip(f"netns exec {self._name} true")
            self.inside = ["ip", "netns", "exec", self._name]
        except (OSError, subprocess.CalledProcessError) as error:
            warnings.warn(f"no network namespaces, so no partition: {error}", stacklevel=2)
            self.host = "127.0.0.1"
            with suppress(OSError):
                subprocess.run(["ip", "netns", "del", self._name], capture_output=True, check=False)
        return self

    def __exit__(self, *_):
        if self.inside:
            _ip(f"netns del {self._name}")

    def pull_the_cable(self) -> None:
        """Packets are lost from now on; nobody is told."""
        if self.inside:
            _ip(f"link set {self._name} down")

    def plug_it_in(self) -> None:
        """Undo `pull_the_cable`."""
        if self.inside:
            _ip(f"link set {self._name} up")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)
