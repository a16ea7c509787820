"""A real federation on loopback: SuperLink with TLS and node keys, SuperNodes, their executors."""

import datetime
import ipaddress
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # executors look for flwr-serverapp there
}
CONNECTED = "SuperNode ID"  # a node says so when the SuperLink has taken it
PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()


class Deployment:
    """Use it in a `with` block; `environment` makes `flwr` and comigs find this SuperLink."""

    def __init__(self, folder: Path, clients: int) -> None:
        self.folder, self.clients = folder, clients
        self.port, *self.node_ports = free_ports(1 + clients)
        self.running: dict[str, subprocess.Popen] = {}
        self.environment = QUIET | {
            "FLWR_HOME": str(folder / "home"),
            "COMIGS_RUNS": str(folder / "runs"),
        }

    def __enter__(self):
        for name in ("home", "superlink"):
            (self.folder / name).mkdir(parents=True)
        certificate(self.folder)
        for i in range(self.clients):
            node_key(self.folder / f"node{i}")
        for name in ("superlink", "node"):
            (self.folder / f"{name}.secret").write_text(secrets.token_hex(32))
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.folder}/ca.crt"\n'
        )
        self.start_superlink()
        self.start_server_executor()
        for i in range(self.clients):
            self.flwr("supernode", "register", str(self.folder / f"node{i}.pub"))
            self.start_node(i)
        return self

    def __exit__(self, *_):
        for name in list(self.running):
            self.kill(name)
        subprocess.run(["pkill", "-KILL", "-f", f"clients.trainer {self.folder}"], check=False)

    def start_superlink(self) -> None:
        self.start(
            "superlink",
            *("flower-superlink", "--isolation", "process", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--database", str(self.folder / "superlink" / "state.db")),
            *("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt"),
            *("--ssl-keyfile", "server.key", "--enable-supernode-auth"),
            *("--superexec-auth-secret-file", "superlink.secret"),
        )
        wait_for(lambda: listens(self.port), "the SuperLink listens")

    def start_server_executor(self) -> None:
        self.start(
            "serverapp",
            *("flower-superexec", "--runtime-api-address", f"127.0.0.1:{self.port}"),
            *("--root-certificates", "ca.crt", "--superexec-auth-secret-file", "superlink.secret"),
        )

    def start_node(self, i: int, key=None, name=None, authority="ca.crt") -> None:
        """Start SuperNode `i` and its executor; one of another name has no executor."""
        port = free_ports(1)[0] if name else self.node_ports[i]
        state = json.dumps(str(self.folder / f"state{i}"))
        self.start(
            name or f"node{i}",
            *("flower-supernode", "--superlink", f"127.0.0.1:{self.port}"),
            *("--root-certificates", authority, "--auth-supernode-private-key", key or f"node{i}"),
            *("--isolation", "process", "--host", "127.0.0.1", "--port", str(port)),
            *("--superexec-auth-secret-file", "node.secret", "--node-config"),
            f"partition-id={i} num-partitions={self.clients} state-dir={state}",
        )
        if not name:
            self.start(
                f"clientapp{i}",
                *("flower-superexec", "--runtime-api-address", f"127.0.0.1:{port}", "--insecure"),
                *("--superexec-auth-secret-file", "node.secret"),
            )

    def start(self, name: str, program: str, *arguments: str) -> None:
        own = {"FLWR_HOME": str(self.folder / f"home-{name}")}
        with open(self.folder / f"{name}.log", "a") as log:
            self.running[name] = subprocess.Popen(
                [BIN / program, *arguments],
                cwd=self.folder,
                env=os.environ | self.environment | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL for the process and all that it has started."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_device(self, i: int) -> None:
        """SIGKILL for all of device `i`: its SuperNode, its executor and its trainer."""
        for name in (f"node{i}", f"clientapp{i}"):
            self.kill(name)
        trainer = f"clients.trainer {self.folder}/state{i}/"
        subprocess.run(["pkill", "-KILL", "-f", trainer], check=False)

    def bring_back_device(self, i: int) -> None:
        """Start device `i` until it stays: a SuperLink refuses a node that it takes to be there."""
        before = self.log(f"node{i}").count(CONNECTED)
        self.start_node(i)

        def is_back() -> bool:
            if self.running[f"node{i}"].poll() is not None:
                time.sleep(10)
                self.kill(f"clientapp{i}")
                self.start_node(i)
            return self.log(f"node{i}").count(CONNECTED) > before

        wait_for(is_back, "the device is back")

    def flwr(self, *arguments: str) -> dict:
        done = subprocess.run(
            [BIN / "flwr", *arguments, "--format", "json"],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(done.stdout[done.stdout.index("{") :])

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def wait_for(holds, what: str) -> None:
    """Look again until `holds()`; a generous limit turns a hang into a failure."""
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, f"never seen: {what}"
        time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def certificate(folder: Path, stem: str = "server") -> None:
    """ca.crt, and a server's certificate signed with it."""
    now = datetime.datetime.now(datetime.UTC)

    def builder(subject, issuer, key):
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    authority, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca = builder("test", "test", authority).add_extension(x509.BasicConstraints(True, 0), True)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    server = builder("server", "test", key).add_extension(
        x509.SubjectAlternativeName([address]), False
    )
    signed = {"ca": ca, stem: server}
    for name, one in signed.items():
        body = one.sign(authority, hashes.SHA384()).public_bytes(PEM)
        (folder / f"{name}.crt").write_bytes(body)
    kind = serialization.PrivateFormat.PKCS8
    (folder / f"{stem}.key").write_bytes(key.private_bytes(PEM, kind, PLAIN))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def node_key(path: Path) -> None:
    """A SuperNode's key pair: `path` and `path`.pub."""
    key, kind = ec.generate_private_key(ec.SECP384R1()), serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(PEM, kind, PLAIN))
    public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(*public))
