"""Certificates, key pairs and shared secrets, written so that only their owner reads them."""

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from comigs.errors import BadInput

CLOCK_SKEW = timedelta(hours=1)


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600 in a folder with mode 0700, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
    temporary.replace(path)


def write_certificates(
    ca_folder: Path, server_folder: Path, hosts: Sequence[str], days: int
) -> None:
    """Write a new certificate authority and a server certificate that it signed.

    Args:
        ca_folder: gets ca.crt and ca.key.
        server_folder: gets server.crt and server.key.
        hosts: DNS names and IP addresses of the server.
        days: lifetime of both certificates.
    """
    ca_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca_name, ca_public = _name("comigs CA"), ca_key.public_key()
    signing = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = (
        _certificate(ca_name, ca_name, ca_public, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signing, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_public), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    server = (
        _certificate(_name(hosts[0]), ca_name, server_key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )
    write_private(ca_folder / "ca.key", _pem(ca_key))
    write_private(ca_folder / "ca.crt", ca.public_bytes(Encoding.PEM))
    write_private(server_folder / "server.key", _pem(server_key))
    write_private(server_folder / "server.crt", server.public_bytes(Encoding.PEM))


def write_node_key(folder: Path) -> None:
    """Write a SuperNode's key pair, node.key and node.pub, in the formats that Flower reads."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_private(folder / "node.key", private)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_private(folder / "node.pub", public + b"\n")


def write_secret(path: Path) -> None:
    """Write a shared secret: 256 random bits, in hexadecimal."""
    write_private(path, secrets.token_hex(32).encode())


def expiry(certificate: Path) -> datetime:
    """When a certificate ends.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError:
        raise BadInput(f"{certificate} is damaged; comigs deploy rotate makes a new one") from None


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
