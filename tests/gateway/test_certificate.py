"""The gateway's certificate: made once, kept private, given ones checked."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from underpass.core.clock import SystemClock
from underpass.core.settings import GatewaySettings, SettingsError
from underpass.gateway.certificate import (
    given_certificate,
    self_made_certificate,
    server_certificate,
)
from underpass.links.trust import fingerprint_of


def test_made_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = self_made_certificate(state, SystemClock(), ["gw.example.org", "192.0.2.7", "münchen"])
    again = self_made_certificate(state, SystemClock())
    assert first == again
    assert first.self_made
    assert stat.S_IMODE(first.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert sorted(path.name for path in state.iterdir()) == ["tls-cert.pem", "tls-key.pem"]
    leaf = x509.load_pem_x509_certificate(first.chain.read_bytes())
    assert first.fingerprint == fingerprint_of(leaf.public_bytes(serialization.Encoding.DER))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "gw.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1", "192.0.2.7"} <= {
        str(ip) for ip in names.get_values_for_type(x509.IPAddress)
    }
    assert first.context().minimum_version.name == "TLSv1_2"


def test_a_crash_between_the_two_files_is_healed(tmp_path: Path) -> None:
    made = self_made_certificate(tmp_path, SystemClock())
    made.chain.unlink()
    (tmp_path / ".tls-cert.pem.new").write_text("half")
    again = self_made_certificate(tmp_path, SystemClock())
    assert again.fingerprint != made.fingerprint
    again.context()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    made = self_made_certificate(tmp_path / "a", SystemClock())
    other = self_made_certificate(tmp_path / "b", SystemClock())
    with pytest.raises(SettingsError, match="Can't read"):
        given_certificate(tmp_path / "none", made.key)
    with pytest.raises(SettingsError, match="no PEM certificate"):
        given_certificate(made.key, made.key)
    with pytest.raises(SettingsError, match="can't be used together"):
        given_certificate(made.chain, other.key).context()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="Can't write"):
        self_made_certificate(tmp_path / "file" / "x", SystemClock())


def test_what_the_settings_ask_for(tmp_path: Path) -> None:
    clock = SystemClock()
    assert server_certificate(GatewaySettings(state=tmp_path), clock) is None
    made = server_certificate(GatewaySettings(state=tmp_path, tls="self"), clock)
    assert made is not None
    assert made.self_made
    given = server_certificate(
        GatewaySettings(state=tmp_path, tls_cert=made.chain, tls_key=made.key), clock
    )
    assert given is not None
    assert not given.self_made
    assert given.fingerprint == made.fingerprint
