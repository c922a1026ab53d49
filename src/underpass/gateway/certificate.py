"""The gateway's TLS: a certificate somebody gave, or one made once in the state directory.

``--tls self`` makes an ECDSA P-256 certificate that agents and commands pin by its fingerprint
(they get it in the join command), so its names and dates matter to browsers only.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from underpass.core.clock import Clock, utc
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.links.trust import ALPN, fingerprint_of

__all__ = ["Certificate", "given_certificate", "self_made_certificate", "server_certificate"]

_LIFETIME = datetime.timedelta(days=3650)
_CERTIFICATE, _KEY = "tls-cert.pem", "tls-key.pem"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server certificate on disk.

    Attributes:
        fingerprint: ``sha256:`` + hex of the leaf's DER.
        self_made: whether it must be pinned to be believed.
    """

    chain: Path
    key: Path
    fingerprint: str
    self_made: bool

    def context(self) -> ssl.SSLContext:
        """A server context that tells links from HTTP by ALPN.

        Raises:
            SettingsError: the files do not fit together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([ALPN, "http/1.1"])
        try:
            context.load_cert_chain(self.chain, self.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"The TLS certificate {self.chain} and key {self.key} can't be used together: "
                f"{getattr(error, 'reason', None) or error}."
            ) from None
        return context


def server_certificate(settings: GatewaySettings, clock: Clock) -> Certificate | None:
    """The certificate *settings* ask for; None without TLS.

    Raises:
        SettingsError: it can't be read, made or used.
    """
    if settings.tls_cert is not None and settings.tls_key is not None:
        return given_certificate(settings.tls_cert, settings.tls_key)
    if settings.tls == "self":
        return self_made_certificate(settings.state, clock)
    return None


def given_certificate(chain: Path, key: Path) -> Certificate:
    """A certificate somebody else made.

    Raises:
        SettingsError: it can't be read.
    """
    return Certificate(chain, key, _fingerprint(chain), self_made=False)


def self_made_certificate(state: Path, clock: Clock, names: Iterable[str] = ()) -> Certificate:
    """The certificate in *state*, made there when there is none.

    Args:
        names: more host names and addresses for it, besides localhost, this host's name and its
            addresses.

    Raises:
        SettingsError: the directory can't be written, or what is there can't be read.
    """
    chain, key = state / _CERTIFICATE, state / _KEY
    if not (chain.exists() and key.exists()):
        try:
            _make(chain, key, clock, [*_own_names(), *names])
        except OSError as error:
            raise SettingsError(
                f"Can't write the TLS certificate to {state}: {error.strerror}."
            ) from None
    return Certificate(chain, key, _fingerprint(chain), self_made=True)


def _fingerprint(chain: Path) -> str:
    try:
        leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    except OSError as error:
        raise SettingsError(f"Can't read the TLS certificate {chain}: {error.strerror}.") from None
    except ValueError:
        raise SettingsError(f"{chain} holds no PEM certificate.") from None
    return fingerprint_of(leaf.public_bytes(serialization.Encoding.DER))


def _own_names() -> list[str]:
    host = socket.gethostname()
    names = ["localhost", host, f"{host}.local", "127.0.0.1", "::1"]
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                names.append(address.address.partition("%")[0])
    return names


def _general_name(name: str) -> x509.GeneralName | None:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:  # not ASCII; a browser would not ask for it either
        return None


def _make(chain: Path, key: Path, clock: Clock, names: list[str]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Underpass gateway")])
    now = utc(clock.now())
    alternatives = [found for name in dict.fromkeys(names) if (found := _general_name(name))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    chain.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The key first: a crash in between leaves no certificate, and both are made anew.
    _write(
        key,
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    _write(chain, certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
