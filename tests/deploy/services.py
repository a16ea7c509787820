"""The services of a compose file as plain processes on this machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DEADLINE = 600  # seconds; only a hang takes that long
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(ROOT),
    "PATH": f"{BIN}:{os.environ['PATH']}",  # executors start flwr-serverapp and flwr-clientapp
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(check, what):
    """The first truthy `check()`."""
    end = time.monotonic() + DEADLINE
    while not (found := check()):
        assert time.monotonic() < end, f"gave up waiting for {what}"
        time.sleep(0.2)
    return found


class Services:
    """Starts services by the command lines of `folder`/compose.yaml, paths and hosts replaced."""

    def __init__(self, folder, logs, superlink_port):
        self.folder, self.logs = folder, logs
        self.services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        self.ports = {(name, port): free_port() for name in self.services for port in (9094, 9099)}
        self.ports["superlink", 8000] = superlink_port
        self.running = {}

    def local(self, name, word):
        """A word of a service's command line as it is on this machine."""
        word = word.replace("0.0.0.0", "127.0.0.1")
        for host, port in self.ports:
            here = str(self.ports[host, port])
            word = word.replace(f"{host}:{port}", f"127.0.0.1:{here}")
            if host == name:
                word = word.replace(f"localhost:{port}", f"localhost:{here}")
                word = word.replace(f"127.0.0.1:{port}", f"127.0.0.1:{here}")
                word = word.replace(f'"127.0.0.1", {port}', f'"127.0.0.1", {here}')
                word = word.replace(f"--port={port}", f"--port={here}")
        mounts = [volume.split(":")[:2] for volume in self.services[name]["volumes"]]
        for source, target in sorted(mounts, key=lambda mount: -len(mount[1])):
            for before in ("=", '"'):
                word = word.replace(f"{before}{target}", f"{before}{self.folder / source}")
        return word

    def start(self, name):
        program, *words = self.services[name]["command"]
        command = [str(BIN / program), *(self.local(name, word) for word in words)]
        home = self.logs / name
        home.mkdir(exist_ok=True)
        environment = self.services[name].get("environment", {}) | {"FLWR_HOME": str(home)}
        with open(self.logs / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=os.environ | QUIET | environment, stdout=log, stderr=log, cwd=home
            )

    def healthy(self, name):
        """Whether the service's own health check passes."""
        kind, program, *words = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        command = [sys.executable, *(self.local(name, word) for word in words)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def log(self, name):
        return (self.logs / f"{name}.log").read_text()

    def stop(self):
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
