"""Tokens, enrolments and machines, against a real gateway."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from underpass.cli import exits
from underpass.core.ids import new_id

from .conftest import Result, RunningGateway

KEY = rsa.generate_private_key(65537, 2048)


def apply(gateway: RunningGateway, hostname: str, token: str | None = None) -> dict[str, Any]:
    """Ask to join as spec 1 says, with a key of our own."""
    import hashlib

    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    body: dict[str, Any] = {
        "client_id": new_id(), "hostname": hostname, "nonce": secrets.token_hex(16),
        "timestamp": int(time.time()), "public_key": public,
    }  # fmt: skip
    text = "\n".join(
        [body["client_id"], hostname, body["nonce"], str(body["timestamp"]),
         hashlib.sha256(public.encode()).hexdigest()]
    )  # fmt: skip
    signature = KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    body["signature"] = base64.b64encode(signature).decode()
    if token:
        body["join_token"] = token
    answer = httpx.post(f"{gateway.url}/api/v1/register", json=body, trust_env=False)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


@pytest.fixture
def machine(gateway: RunningGateway, signed_in: Callable[..., Result]) -> str:
    name = f"box-{secrets.token_hex(3)}"
    apply(gateway, name)
    assert signed_in("approve", name, "--label", "env=prod").status == 0
    return name


def test_approving_and_rejecting(gateway: RunningGateway, signed_in: Callable[..., Result]) -> None:
    apply(gateway, "wanted")
    apply(gateway, "unwanted")
    listed = signed_in("--json", "approve").json
    assert {"wanted", "unwanted"} <= {item["hostname"] for item in listed}
    assert "sha256:" in signed_in("approve").out or "SHA256:" in signed_in("approve").out
    approved = signed_in("--json", "approve", "wanted").json
    assert approved["status"] == "approved"
    assert "encrypted_secret" not in approved
    rejected = signed_in("--json", "reject", "unwanted").json
    assert rejected["status"] == "rejected"
    assert signed_in("approve", "unwanted").status == exits.NOT_FOUND


def test_listing_and_showing(machine: str, signed_in: Callable[..., Result]) -> None:
    assert machine in signed_in("machines").out
    assert machine in signed_in("machines", "list", "--label", "env=prod").out
    assert machine not in signed_in("machines", "list", "--label", "env=dev").out
    assert machine not in signed_in("machines", "list", "--status", "online").out
    shown = signed_in("machines", "show", machine.upper(), "--json").json
    assert shown["labels"] == {"env": "prod"}
    by_id = signed_in("machines", "show", shown["id"])
    assert by_id.status == 0
    assert "labels.env" in by_id.out


def test_changing(machine: str, signed_in: Callable[..., Result]) -> None:
    changed = signed_in(
        "--json", "machines", "set", machine, "--name", f"{machine}-2", "--label", "team=blue",
        "--label", "env=", "--allow", "ana",
        "--status", "maintenance",
    )  # fmt: skip
    assert changed.status == 0, changed.err
    assert changed.json["labels"] == {"team": "blue"}
    assert changed.json["status"] == "maintenance"
    assert len(changed.json["allowed_users"]) == 1
    denied = signed_in("--json", "machines", "set", f"{machine}-2", "--deny", "ana")
    assert denied.json["allowed_users"] == []
    assert signed_in("machines", "set", f"{machine}-2", "--allow", "nobody").status != 0
    assert signed_in("machines", "set", f"{machine}-2").status == exits.USAGE


def test_what_a_machine_declares_counts_when_it_may(
    gateway: RunningGateway, signed_in: Callable[..., Result]
) -> None:
    made = signed_in("--json", "token", "create", "--may-declare").json
    assert made["may_declare"] is True
    name = f"joiner-{secrets.token_hex(3)}"
    apply(gateway, name, made["token"])
    assert signed_in("--json", "machines", "show", name).json["may_declare"] is True
    taken = signed_in("--json", "machines", "set", name, "--no-may-declare")
    assert taken.json["may_declare"] is False
    given = signed_in("--json", "machines", "set", name, "--may-declare")
    assert given.json["may_declare"] is True


def test_removing(machine: str, signed_in: Callable[..., Result]) -> None:
    assert signed_in("machines", "remove", machine, "--yes").status == 0
    gone = signed_in("machines", "show", machine)
    assert gone.status == exits.NOT_FOUND
    assert machine in gone.err


def test_tokens(gateway: RunningGateway, signed_in: Callable[..., Result]) -> None:
    made = signed_in(
        "--json", "token", "create", "--uses", "2", "--expires", "1h", "--label", "env=lab"
    ).json
    assert made["token"].startswith("upj_")
    assert made["join_command"].startswith("underpass agent --server http")
    assert made["token"] in made["join_command"]
    assert made["id"] in signed_in("token", "list").out
    assert made["may_declare"] is False
    joined = apply(gateway, f"joiner-{secrets.token_hex(3)}", made["token"])
    assert joined["status"] == "approved"
    assert signed_in("token", "revoke", made["id"]).status == 0
    shown = signed_in("token", "create")
    assert "underpass agent --server" in shown.out


@pytest.mark.parametrize("arguments", [("--expires", "soon"), ("--uses", "0"), ("--label", "x")])
def test_bad_token_options(signed_in: Callable[..., Result], arguments: tuple[str, str]) -> None:
    assert signed_in("token", "create", *arguments).status == exits.USAGE


def test_completion_gives_names_and_caches_them(
    machine: str, signed_in: Callable[..., Result]
) -> None:
    from types import SimpleNamespace
    from typing import cast

    import typer

    from underpass.cli.arguments import complete_machine

    root = SimpleNamespace(params={})
    context = cast("typer.Context", SimpleNamespace(find_root=lambda: root))
    assert machine in complete_machine(context, "box-")
    assert machine in complete_machine(context, "box-")
    assert complete_machine(context, "nothing-like-it") == []
    root.params["server"] = "ftp://nonsense"
    assert complete_machine(context, "") == []


def test_doctor_finds_the_gateway_well(signed_in: Callable[..., Result]) -> None:
    result = signed_in("doctor", "--json")
    assert result.status == 0, result.out
    found = {check["name"]: check for check in result.json}
    assert found.pop("QUIC over UDP")["result"] in ("ok", "skip")
    assert {check["result"] for check in found.values()} == {"ok"}


def test_doctor_skips_what_an_earlier_failure_makes_moot(
    underpass: Callable[..., Result],
) -> None:
    result = underpass("--server", "http://127.0.0.1:9", "doctor")
    assert result.status == exits.FAILED
    assert "fail  gateway port" in result.out
    assert "skip  login" in result.out


def test_doctor_sees_what_others_can_read(signed_in: Callable[..., Result], home: Any) -> None:
    (home / ".underpass").mkdir(mode=0o755)
    (home / ".config/underpass/credentials.json").chmod(0o644)
    found = {check["name"]: check for check in signed_in("doctor", "--json").json}
    assert found["stored login"]["result"] == "fail"
    assert "chmod 600" in found["stored login"]["hint"]
    assert found["state directory"]["result"] == "fail"


def test_version_asks_the_gateway(signed_in: Callable[..., Result]) -> None:
    value = signed_in("version", "--json").json
    assert value["gateway"] == value["version"]
