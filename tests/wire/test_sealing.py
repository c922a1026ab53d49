"""The handshake of sealed streams: what it proves, and everything in between that it finds."""

from __future__ import annotations

import functools
import os
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from underpass.wire import sealing
from underpass.wire.applications import key_fingerprint
from underpass.wire.sealed_records import Sealer, Unsealer
from underpass.wire.sealing import (
    MAGIC,
    MAX_MESSAGE,
    Sealed,
    SealingAgent,
    SealingClient,
    SealingError,
    WrongKey,
)

TARGET = "tcp:db:5432"


@functools.cache
def made(number: int, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    return made(number, bits)


FINGERPRINT = key_fingerprint(key().public_key())


def answered(client: SealingClient, target: str = TARGET, number: int = 0) -> tuple[bytes, Sealed]:
    agent = SealingAgent(target, key(number))
    hello = agent.feed(client.hello)
    assert hello is not None
    return agent.answer(hello)


def shaken() -> tuple[Sealed, Sealed]:
    client = SealingClient(TARGET, agent_fingerprint=FINGERPRINT)
    answer, at_agent = answered(client)
    at_client = client.feed(answer)
    assert at_client is not None
    return at_client, at_agent


def test_both_have_the_same_keys() -> None:
    client, agent = shaken()
    assert (client.outgoing, client.incoming) == (agent.incoming, agent.outgoing)
    assert client.outgoing != client.incoming
    assert client.fingerprint == agent.fingerprint == FINGERPRINT
    assert client.rest == agent.rest == b""
    assert repr(client.outgoing) not in repr(client)


def test_every_stream_has_keys_of_its_own() -> None:
    assert shaken()[0].outgoing != shaken()[0].outgoing


def test_any_fragmentation_and_what_follows() -> None:
    client = SealingClient(TARGET)
    agent = SealingAgent(TARGET, key())
    for byte in client.hello[:-1]:
        assert agent.feed(bytes([byte])) is None
    hello = agent.feed(client.hello[-1:] + b"early record")
    assert hello == client.hello
    answer, at_agent = agent.answer(hello)
    assert at_agent.rest == b"early record"
    for byte in answer[:-1]:
        assert client.feed(bytes([byte])) is None
    done = client.feed(answer[-1:] + b"a record")
    assert done is not None
    assert done.rest == b"a record"
    unsealer = Unsealer(done.incoming)
    unsealer.feed(Sealer(at_agent.outgoing).seal(b"hello")[0])
    assert unsealer.next() == b"hello"


def test_another_key_than_the_known_one() -> None:
    client = SealingClient(TARGET, agent_fingerprint=FINGERPRINT)
    answer, _ = answered(client, number=1)
    with pytest.raises(WrongKey) as caught:
        client.feed(answer)
    assert caught.value.code == "agent_key_changed"
    assert caught.value.expected == FINGERPRINT
    assert caught.value.found == key_fingerprint(key(1).public_key())
    assert FINGERPRINT in str(caught.value)


def test_led_to_another_target() -> None:
    client = SealingClient(TARGET)
    answer, _ = answered(client, target="tcp:db:22")
    with pytest.raises(SealingError) as caught:
        client.feed(answer)
    assert caught.value.code == "e2e_signature"


def test_an_old_answer_is_no_answer() -> None:
    answer, _ = answered(SealingClient(TARGET))
    with pytest.raises(SealingError) as caught:
        SealingClient(TARGET).feed(answer)
    assert caught.value.code == "e2e_signature"


def fields(answer: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(answer[len(MAGIC) + 2 :])


def message(body: Any) -> bytes:
    data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    return MAGIC + len(data).to_bytes(2, "big") + data


def der(private: Any) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("field", ["public", "signature", "proof"])
def test_a_changed_field(field: str) -> None:
    client = SealingClient(TARGET)
    found = fields(answered(client)[0])
    found[field] = bytes([found[field][0] ^ 1]) + found[field][1:]
    with pytest.raises(SealingError) as caught:
        client.feed(message(found))
    assert caught.value.code == "e2e_signature"


def test_another_agent_may_not_sign_for_an_exchange_it_does_not_know() -> None:
    """An agent in between puts its own identity on another agent's exchange: no proof."""
    client = SealingClient(TARGET)
    found = fields(answered(client)[0])
    transcript = sealing._transcript(TARGET, client.hello, found["public"], der(key(1)))
    found["key"] = der(key(1))
    found["signature"] = key(1).sign(sealing._AGENT_LABEL + transcript, sealing._PSS, SHA256())
    with pytest.raises(SealingError) as caught:
        client.feed(message(found))
    assert caught.value.code == "e2e_signature"


def test_a_signature_of_another_kind() -> None:
    client = SealingClient(TARGET)
    found = fields(answered(client)[0])
    transcript = sealing._transcript(TARGET, client.hello, found["public"], found["key"])
    signed = sealing._AGENT_LABEL + transcript
    found["signature"] = key().sign(signed, padding.PKCS1v15(), SHA256())
    with pytest.raises(SealingError):
        client.feed(message(found))


@pytest.mark.parametrize(
    "private",
    [
        lambda: ed25519.Ed25519PrivateKey.generate(),
        lambda: key(2, 1024),
        lambda: X25519PrivateKey.generate(),
    ],
    ids=["ed25519", "1024 bit", "x25519"],
)
def test_keys_that_are_no_identity(private: Any) -> None:
    client = SealingClient(TARGET)
    found = fields(answered(client)[0])
    found["key"] = der(private())
    with pytest.raises(SealingError) as caught:
        client.feed(message(found))
    assert caught.value.code == "e2e_failed"


def test_a_key_with_an_exponent_that_is_an_attack() -> None:
    client = SealingClient(TARGET)
    found = fields(answered(client)[0])
    numbers = key().public_key().public_numbers()
    huge = rsa.RSAPublicNumbers((1 << 200) + 1, numbers.n).public_key()
    found["key"] = huge.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(SealingError):
        client.feed(message(found))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xc1", b"\x80", b"\x91" * 3000, {"public": b"x"}, [], 7,
        {"public": bytes(32), "key": b"no key", "signature": b"s", "proof": bytes(32)},
        {"public": bytes(31), "key": b"k", "signature": b"s", "proof": bytes(32)},
        {"public": bytes(32), "key": bytes(2049), "signature": b"s", "proof": bytes(32)},
        {"public": bytes(32), "key": b"k", "signature": b"s", "proof": bytes(33)},
    ],
)  # fmt: skip
def test_malformed_messages(body: Any) -> None:
    with pytest.raises(SealingError) as caught:
        SealingClient(TARGET).feed(message(body))
    assert caught.value.code == "e2e_failed"


def test_a_message_over_the_cap_is_refused_by_its_length() -> None:
    with pytest.raises(SealingError, match="over the cap"):
        SealingClient(TARGET).feed(MAGIC + (MAX_MESSAGE + 1).to_bytes(2, "big"))


def test_low_order_points() -> None:
    """A point that makes the shared secret zero, on either side."""
    with pytest.raises(SealingError, match="not usable"):
        SealingAgent(TARGET, key()).answer(MAGIC + bytes(32))

    client = SealingClient(TARGET)
    zero = bytes(32)
    transcript = sealing._transcript(TARGET, client.hello, zero, der(key()))
    signature = key().sign(sealing._AGENT_LABEL + transcript, sealing._PSS, SHA256())
    body = {"public": zero, "key": der(key()), "signature": signature, "proof": bytes(32)}
    with pytest.raises(SealingError, match="not usable"):
        client.feed(message(body))


@pytest.mark.parametrize("side", ["client", "agent"])
@pytest.mark.parametrize(
    ("first", "code"),
    [(b"UPSEAL02", "e2e_version"), (b"UPSEAL\xff", "e2e_version"), (b"SSH-2.0-x", "e2e_failed"),
     (b"\x00", "e2e_failed")],
)  # fmt: skip
def test_other_protocols_and_versions(side: str, first: bytes, code: str) -> None:
    subject = SealingClient(TARGET) if side == "client" else SealingAgent(TARGET, key())
    with pytest.raises(SealingError) as caught:
        subject.feed(first)
    assert caught.value.code == code


def test_targets_are_bytes_as_they_came() -> None:
    """Also one that is no valid Unicode, as a path may be."""
    target = "unix:/tmp/\udcff"
    client = SealingClient(target)
    answer, _ = answered(client, target=target)
    assert client.feed(answer) is not None


def test_noise() -> None:
    for _ in range(200):
        with pytest.raises(SealingError):
            SealingClient(TARGET).feed(message(os.urandom(100)))
