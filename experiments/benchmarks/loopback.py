"""The services of a compose file as plain processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

from comigs.deploy import flowercli
from comigs.deploy.register import register

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLOCK = Path(__file__).parent / "clock"
CONNECTED = "SuperNode ID"  # a SuperNode says so when the SuperLink has taken it
DEADLINE = 600  # seconds; only a hang takes that long
QUIET = flowercli.QUIET | {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "PATH": f"{BIN}:{os.environ['PATH']}",  # executors start flwr-serverapp and flwr-clientapp
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(check, what, pause=0.2):
    """The first truthy `check()`; `pause` in seconds."""
    end = time.monotonic() + DEADLINE
    while not (found := check()):
        assert time.monotonic() < end, f"gave up waiting for {what}"
        time.sleep(pause)
    return found


class Services:
    """Starts services by the command lines of `folder`/compose.yaml, paths and hosts replaced.

    Args:
        folder: of the project.
        logs: folder for what the services print.
        superlink_port: on this machine.
        networks: by device, a network that it is alone in.
        skews: by device, seconds that its clock is ahead.
    """

    def __init__(self, folder, logs, superlink_port, networks=None, skews=None):
        self.folder, self.logs = folder, logs
        self.networks, self.skews = networks or {}, skews or {}
        self.services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        self.ports = {(name, port): free_port() for name in self.services for port in (9094, 9099)}
        self.ports["superlink", 8000] = superlink_port
        self.running = {}

    def local(self, name, word):
        """A word of a service's command line as it is on this machine."""
        if name != "superlink" or not self.networks:
            word = word.replace("0.0.0.0", "127.0.0.1")
        network = self.networks.get(_device(name))
        outside = network.host if network else "127.0.0.1"
        for host, port in self.ports:
            here = str(self.ports[host, port])
            address = outside if host == "superlink" else "127.0.0.1"
            word = word.replace(f"{host}:{port}", f"{address}:{here}")
            if host == name:
                word = word.replace(f"localhost:{port}", f"localhost:{here}")
                word = word.replace(f"127.0.0.1:{port}", f"127.0.0.1:{here}")
                word = word.replace(f'"127.0.0.1", {port}', f'"127.0.0.1", {here}')
                word = word.replace(f"--port={port}", f"--port={here}")
        for source, target in self._mounts(name):
            for before in ("=", '"'):
                word = word.replace(f"{before}{target}", f"{before}{source}")
        return word

    def _mounts(self, name):
        """Folders here and there; a SuperNode names some that its ClientApp has."""
        both = (name, name.replace("supernode-", "clientapp-"))
        volumes = [volume for one in both for volume in self.services[one]["volumes"]]
        mounts = [volume.split(":")[:2] for volume in volumes]
        mounts.sort(key=lambda mount: -len(mount[1]))
        return [(str(self.folder / source), target) for source, target in mounts]

    def start(self, name, alias=None, changes=(), skew=None):
        """Start a service; under another name with `changes` to its command line, if given."""
        program, *words = (self.local(name, word) for word in self.services[name]["command"])
        for before, after in changes:
            words = [word.replace(before, after) for word in words]
        network = self.networks.get(_device(name))
        home = self.logs / (alias or name)
        home.mkdir(exist_ok=True)
        with open(self.logs / f"{alias or name}.log", "ab") as log:
            self.running[alias or name] = subprocess.Popen(
                [*(network.inside if network else ()), str(BIN / program), *words],
                env=self._environment(name, skew) | {"FLWR_HOME": str(home)},
                stdout=log,
                stderr=log,
                cwd=self._home(name),
                start_new_session=True,
            )

    def _environment(self, name, skew):
        own = dict(self.services[name].get("environment", {}))
        for source, target in self._mounts(name):
            own = {
                key: source + value.removeprefix(target) if value.startswith(target) else value
                for key, value in own.items()
            }
        skew = self.skews.get(_device(name), 0) if skew is None else skew
        clock = {"CLOCK_SKEW": str(skew), "PYTHONPATH": f"{CLOCK}{os.pathsep}{ROOT}"}
        return os.environ | QUIET | own | clock

    def _home(self, name):
        """Where `data` is the folder that the container has as /data."""
        if device := _device(name):
            return self.folder / "devices" / device
        return self.folder / "server"

    def start_all(self):
        """Start the SuperLink, register the devices and start the rest."""
        self.start("superlink")
        wait_for(lambda: self.healthy("superlink"), "the SuperLink")
        list(register(self.folder))
        for name in self.services:
            if name != "superlink":
                self.start(name)

    def healthy(self, name):
        """Whether the service's own health check passes."""
        kind, program, *words = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        network = self.networks.get(_device(name))
        command = [sys.executable, *(self.local(name, word) for word in words)]
        return not subprocess.call(
            [*(network.inside if network else ()), *command], stderr=subprocess.DEVNULL
        )

    def kill(self, name):
        """SIGKILL for the service and all that it has started."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_device(self, device):
        """SIGKILL for a device's SuperNode, executor and trainer."""
        self.kill(f"supernode-{device}")
        self.kill(f"clientapp-{device}")
        self._kill_trainers(f"devices/{device}/")

    def bring_back(self, device):
        """Start a device until it stays: a SuperLink refuses a node that it takes to be there."""
        name = f"supernode-{device}"
        before = self.log(name).count(CONNECTED)
        self.start(name)

        def is_back():
            if self.running[name].poll() is not None:
                time.sleep(10)
                self.start(name)
            return self.log(name).count(CONNECTED) > before

        wait_for(is_back, f"{device} to be back")
        self.start(f"clientapp-{device}")

    def log(self, name):
        return (self.logs / f"{name}.log").read_text()

    def stop(self):
        for name in list(self.running):
            self.kill(name)
        self._kill_trainers("")

    def _kill_trainers(self, where):
        trainer = f"comigs_clients.trainer {self.folder}/{where}"
        subprocess.run(["pkill", "-KILL", "-f", trainer], check=False)


def _device(service):
    return service.partition("-")[2]
