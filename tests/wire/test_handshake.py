"""The link handshake: both sides prove themselves, and nobody in between can change a bit."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from underpass.wire.handshake import (
    MAX_MESSAGE,
    PREFACE,
    AgentIdentity,
    Claim,
    ClientIdentity,
    Established,
    HandshakeError,
    Initiator,
    Refused,
    Responder,
)
from underpass.wire.handshake.messages import is_signed

NODE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NODE_PUBLIC = NODE_KEY.public_key().public_bytes_raw()
SECRET = b"s" * 32
AGENT = AgentIdentity("11111111-1111-4111-8111-111111111111", SECRET, "web-1")
CLIENT = ClientIdentity("ups_" + "t" * 43, "laptop")


def pair(
    identity: AgentIdentity | ClientIdentity = AGENT, **options: object
) -> tuple[Initiator, Responder]:
    options.setdefault("pinned_key", NODE_PUBLIC)
    return Initiator(identity, **options), Responder(NODE_KEY, "node-1")  # type: ignore[arg-type]


def claimed(initiator: Initiator, responder: Responder) -> Claim:
    assert responder.feed(initiator.data_to_send()) is None
    assert initiator.feed(responder.data_to_send()) is None
    claim = responder.feed(initiator.data_to_send())
    assert claim is not None
    return claim


def framed(message: object) -> bytes:
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(2, "big") + data


def body_of(data: bytes) -> dict:
    length = int.from_bytes(data[:2], "big")
    assert len(data) == 2 + length
    return msgspec.msgpack.decode(data[2:])


def hello(**changes: object) -> bytes:
    message = {
        "type": "hello", "versions": [1], "role": "agent", "id": AGENT.id,
        "nonce": b"n" * 32, "public": X25519PrivateKey.generate().public_key().public_bytes_raw(),
    }  # fmt: skip
    return PREFACE + framed(message | changes)


class TestAgreement:
    def test_agent_and_node_prove_themselves(self) -> None:
        initiator, responder = pair(software="1.0", features=frozenset({"pty", "tcp"}))
        claim = claimed(initiator, responder)
        assert claim == Claim(
            "agent", AGENT.id, "web-1", "1.0", frozenset({"pty", "tcp"}), 1, token=None
        )
        assert responder.claim is claim
        assert responder.role == "agent"
        assert responder.proves(SECRET)
        responder.welcome("link-1", 12.5, settings={"heartbeat": 30}, features=frozenset({"x"}))
        got = initiator.feed(responder.data_to_send() + b"first frame")
        assert got == Established(
            "link-1", "node-1", NODE_PUBLIC, 12.5, {"heartbeat": 30}, frozenset({"x"}), 1,
            b"first frame",
        )  # fmt: skip

    def test_client_token_arrives_sealed(self) -> None:
        initiator, responder = pair(CLIENT)
        sent = bytearray(initiator.data_to_send())
        responder.feed(sent)
        initiator.feed(responder.data_to_send())
        auth = initiator.data_to_send()
        assert CLIENT.token.encode() not in auth
        claim = responder.feed(auth)
        assert claim is not None
        assert (claim.role, claim.token, claim.name) == ("client", CLIENT.token, "laptop")
        responder.welcome("link-2", 1.0)
        got = initiator.feed(responder.data_to_send())
        assert got is not None
        assert got.link_id == "link-2"

    def test_without_a_pin_the_node_key_is_reported(self) -> None:
        initiator, responder = pair(pinned_key=None)
        claimed(initiator, responder)
        assert responder.proves(SECRET)
        responder.welcome("l", 0.0)
        got = initiator.feed(responder.data_to_send())
        assert got is not None
        assert got.node_key == NODE_PUBLIC

    def test_byte_by_byte(self) -> None:
        initiator, responder = pair()
        established = None
        for _ in range(3):
            for byte in initiator.data_to_send():
                if responder.feed(bytes([byte])) is not None:
                    assert responder.proves(SECRET)
                    responder.welcome("l", 0.0)
            for byte in responder.data_to_send():
                established = established or initiator.feed(bytes([byte]))
        assert established is not None

    def test_unknown_fields_and_newer_versions_are_ignored(self) -> None:
        responder = Responder(NODE_KEY, "n")
        assert responder.feed(hello(versions=[9, 1, 7], later={"a": [1]})) is None
        challenge = body_of(responder.data_to_send())
        assert msgspec.msgpack.decode(challenge["body"])["version"] == 1

    def test_secrets_stay_out_of_representations(self) -> None:
        assert "sss" not in repr(AGENT)
        assert CLIENT.token not in repr(CLIENT)
        claim = claimed(*pair(CLIENT))
        assert CLIENT.token not in repr(claim)

    def test_nothing_is_the_same_twice(self) -> None:
        first, second = Initiator(AGENT), Initiator(AGENT)
        assert first.data_to_send() != second.data_to_send()
        assert first.data_to_send() == b""


class TestImpostors:
    def test_wrong_secret_and_unknown_agent_look_the_same(self) -> None:
        for secret in (b"x" * 32, None):
            initiator, responder = pair()
            claimed(initiator, responder)
            assert not responder.proves(secret)
            with pytest.raises(RuntimeError):
                responder.welcome("l", 0.0)
            responder.refuse("not_enrolled", "No.", final=True)
            with pytest.raises(Refused) as refused:
                initiator.feed(responder.data_to_send())
            assert (refused.value.code, refused.value.final) == ("not_enrolled", True)

    def test_a_node_with_another_key_learns_nothing(self) -> None:
        initiator = Initiator(CLIENT, pinned_key=NODE_PUBLIC)
        impostor = Responder(Ed25519PrivateKey.generate(), "node-1")
        impostor.feed(initiator.data_to_send())
        with pytest.raises(HandshakeError) as error:
            initiator.feed(impostor.data_to_send())
        assert error.value.code == "wrong_node_key"
        assert initiator.data_to_send() == b""

    @pytest.mark.parametrize("identity", [AGENT, CLIENT])
    def test_both_ends_cover_what_the_handshake_is_bound_to(
        self, identity: AgentIdentity | ClientIdentity
    ) -> None:
        """QUIC: somebody in between shows a certificate of their own and passes our bytes on."""
        initiator = Initiator(identity, pinned_key=NODE_PUBLIC, binding=b"certificate 1")
        responder = Responder(NODE_KEY, "node-1", binding=b"certificate 1")
        claimed(initiator, responder)
        assert identity is CLIENT or responder.proves(SECRET)
        responder.welcome("l", 0.0)
        assert initiator.feed(responder.data_to_send()) is not None

        for seen in (b"certificate 2", b""):
            initiator = Initiator(identity, pinned_key=NODE_PUBLIC, binding=seen)
            responder = Responder(NODE_KEY, "node-1", binding=b"certificate 1")
            responder.feed(initiator.data_to_send())
            with pytest.raises(HandshakeError) as error:
                initiator.feed(responder.data_to_send())
            assert error.value.code == "bad_signature"
            assert initiator.data_to_send() == b""  # nothing that proves us was said

    def test_a_man_in_the_middle_cannot_swap_the_x25519_keys(self) -> None:
        initiator, responder = pair(CLIENT)
        mine = X25519PrivateKey.generate().public_key().public_bytes_raw()
        message = body_of(initiator.data_to_send()[8:])
        responder.feed(PREFACE + framed(message | {"public": mine}))
        with pytest.raises(HandshakeError) as error:
            initiator.feed(responder.data_to_send())
        assert error.value.code == "bad_signature"

        initiator, responder = pair(CLIENT)
        responder.feed(initiator.data_to_send())
        challenge = body_of(responder.data_to_send())
        inner = msgspec.msgpack.decode(challenge["body"]) | {"public": mine}
        with pytest.raises(HandshakeError) as error:
            initiator.feed(framed(challenge | {"body": msgspec.msgpack.encode(inner)}))
        assert error.value.code == "bad_signature"

    def test_a_node_that_does_not_know_the_secret_is_not_believed(self) -> None:
        initiator, responder = pair()
        claimed(initiator, responder)
        responder._welcome_key = b"guessed" * 4
        responder.welcome("l", 0.0)
        with pytest.raises(HandshakeError) as error:
            initiator.feed(responder.data_to_send())
        assert error.value.code == "bad_proof"

    def test_a_replayed_auth_proves_nothing(self) -> None:
        initiator, responder = pair()
        first_hello = initiator.data_to_send()
        responder.feed(first_hello)
        initiator.feed(responder.data_to_send())
        auth = initiator.data_to_send()
        responder.feed(auth)
        assert responder.proves(SECRET)

        again = Responder(NODE_KEY, "node-1")
        again.feed(first_hello)
        assert again.feed(auth) is not None
        assert not again.proves(SECRET)

    def test_a_replayed_client_auth_does_not_open(self) -> None:
        initiator, responder = pair(CLIENT)
        first_hello = initiator.data_to_send()
        responder.feed(first_hello)
        initiator.feed(responder.data_to_send())
        auth = initiator.data_to_send()
        again = Responder(NODE_KEY, "node-1")
        again.feed(first_hello)
        with pytest.raises(HandshakeError) as error:
            again.feed(auth)
        assert error.value.code == "bad_proof"

    def test_a_replayed_challenge_is_refused(self) -> None:
        initiator, responder = pair()
        responder.feed(initiator.data_to_send())
        challenge = responder.data_to_send()
        with pytest.raises(HandshakeError) as error:
            Initiator(AGENT, pinned_key=NODE_PUBLIC).feed(challenge)
        assert error.value.code == "bad_signature"

    def test_the_version_list_cannot_be_cut_down(self) -> None:
        initiator = Initiator(AGENT, pinned_key=NODE_PUBLIC, versions=(1, 2))
        responder = Responder(NODE_KEY, "node-1", versions=(1, 2))
        message = body_of(initiator.data_to_send()[8:])
        assert message["versions"] == [1, 2]
        responder.feed(PREFACE + framed(message | {"versions": [1]}))
        with pytest.raises(HandshakeError) as error:
            initiator.feed(responder.data_to_send())
        assert error.value.code == "bad_signature"

    def test_a_version_never_offered_is_refused(self) -> None:
        initiator = Initiator(AGENT, pinned_key=NODE_PUBLIC)
        sent = body_of(initiator.data_to_send()[8:])
        rogue = Responder(NODE_KEY, "node-1")
        rogue._versions = (1,)
        rogue.feed(PREFACE + framed(sent))
        initiator._versions = (2,)
        with pytest.raises(HandshakeError) as error:
            initiator.feed(rogue.data_to_send())
        assert error.value.code == "unsupported_version"

    @pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31)])
    def test_low_order_points_are_refused(self, public: bytes) -> None:
        responder = Responder(NODE_KEY, "n")
        responder.feed(hello(role="client", id="", public=public))
        with pytest.raises(HandshakeError) as error:
            responder.feed(framed({"type": "auth", "sealed": b"x" * 40}))
        assert error.value.code == "bad_message"

    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from([AGENT, CLIENT]), st.integers(0, 3), st.data())
    def test_no_bit_can_be_flipped_on_the_way(
        self, identity: AgentIdentity | ClientIdentity, which: int, data: st.DataObject
    ) -> None:
        initiator, responder = pair(identity)
        number = 0

        def wire(message: bytes) -> bytes:
            nonlocal number
            if number == which and message:
                bit = data.draw(st.integers(0, len(message) * 8 - 1))
                altered = bytearray(message)
                altered[bit // 8] ^= 1 << (bit % 8)
                message = bytes(altered)
            number += 1
            return message

        established = None
        try:
            for _ in range(3):
                claim = responder.feed(wire(initiator.data_to_send()))
                if claim is not None:
                    proven = (
                        responder.proves(SECRET)
                        if claim.role == "agent"
                        else claim.token == CLIENT.token
                    )
                    if not proven:
                        return
                    responder.welcome("l", 0.0)
                established = initiator.feed(wire(responder.data_to_send()))
                if established is not None:
                    break
        except HandshakeError:
            pass
        assert established is None


class TestRefusals:
    def test_a_signed_refusal_carries_everything(self) -> None:
        initiator, responder = pair()
        claimed(initiator, responder)
        responder.refuse("busy", "Too many.", retry_after=7.0)
        with pytest.raises(Refused) as refused:
            initiator.feed(responder.data_to_send())
        error = refused.value
        assert (error.code, error.message, error.retry_after) == ("busy", "Too many.", 7.0)
        assert error.verified
        assert not error.final

    def test_an_unsigned_refusal_is_never_final(self) -> None:
        initiator, responder = pair()
        responder.refuse("busy", "", final=True)
        with pytest.raises(Refused) as refused:
            initiator.feed(responder.data_to_send())
        assert not refused.value.final
        assert not refused.value.verified
        assert "refused" in refused.value.message

    def test_a_refusal_by_somebody_else_is_never_final(self) -> None:
        initiator, responder = pair()
        claimed(initiator, responder)
        responder._node_key = Ed25519PrivateKey.generate()
        responder.refuse("not_enrolled", "Go away.", final=True)
        with pytest.raises(Refused) as refused:
            initiator.feed(responder.data_to_send())
        assert not refused.value.final

    def test_a_refusal_before_the_challenge_needs_the_pin_to_be_final(self) -> None:
        for pinned, final in ((NODE_PUBLIC, True), (None, False)):
            initiator = Initiator(AGENT, pinned_key=pinned, versions=(2,))
            responder = Responder(NODE_KEY, "n")
            with pytest.raises(HandshakeError) as error:
                responder.feed(initiator.data_to_send())
            assert error.value.code == "unsupported_version"
            with pytest.raises(Refused) as refused:
                initiator.feed(responder.data_to_send())
            assert refused.value.code == "unsupported_version"
            assert refused.value.final is final

    def test_refusing_is_done_once(self) -> None:
        responder = Responder(NODE_KEY, "n")
        responder.refuse("a", "b", retry_after=-5)
        assert responder.data_to_send()
        responder.refuse("c", "d")
        assert responder.data_to_send() == b""

    def test_a_bad_pinned_key_verifies_nothing(self) -> None:
        assert not is_signed(b"short", b"x" * 64, b"data")


class TestBadInput:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"GET / HTTP/1.1\r\n", "not_a_link"),
            (b"UNDPASS2", "not_a_link"),
            (PREFACE + b"\xff\xff", "too_large"),
            (PREFACE + b"\x00\x00", "bad_message"),
            (PREFACE + b"\x00\x01\xc1", "bad_message"),
            (PREFACE + framed([1, 2]), "bad_message"),
            (PREFACE + framed({"type": "auth"}), "bad_message"),
            (PREFACE + framed("x" * 100), "bad_message"),
            (PREFACE + (6000).to_bytes(2, "big") + b"\x91" * 6000, "bad_message"),
            (PREFACE + b"\x00\x05\xdd\xff\xff\xff\xff", "bad_message"),
            (hello(versions=[]), "bad_message"),
            (hello(versions=[1] * 17), "bad_message"),
            (hello(versions=[0]), "bad_message"),
            (hello(versions=[250]), "unsupported_version"),
            (hello(role="node"), "unsupported_role"),
            (hello(role="king"), "unsupported_role"),
            (hello(id="x" * 65), "bad_message"),
            (hello(nonce=b"short"), "bad_message"),
            (hello(public=b"p" * 33), "bad_message"),
            (hello(features=["f"] * 65), "bad_message"),
        ],
    )
    def test_responder(self, data: bytes, code: str) -> None:
        responder = Responder(NODE_KEY, "n")
        with pytest.raises(HandshakeError) as error:
            responder.feed(data)
        assert error.value.code == code
        assert (responder.data_to_send() == b"") is (code == "not_a_link")
        with pytest.raises(HandshakeError) as error:
            responder.feed(b"more")
        assert error.value.code == "out_of_turn"

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n", "not_a_link"),
            (b"HTXP/1.1 400 Bad Request\r\n", "too_large"),
            (framed({"type": "welcome", "body": b"", "proof": b"p" * 32}), "bad_message"),
            (framed({"type": "challenge", "body": b"", "signature": b"s" * 64}), "bad_message"),
            (framed({"type": "refuse", "body": b"\x80"}), "bad_message"),
        ],
    )
    def test_initiator(self, data: bytes, code: str) -> None:
        initiator = Initiator(AGENT)
        with pytest.raises(HandshakeError) as error:
            for index in range(len(data)):
                initiator.feed(data[index : index + 1])
        assert error.value.code == code
        with pytest.raises(HandshakeError) as error:
            initiator.feed(b"more")
        assert error.value.code == "out_of_turn"

    def test_eof_is_truncation_on_both_sides(self) -> None:
        for side in pair():
            with pytest.raises(HandshakeError) as error:
                side.feed_eof()
            assert error.value.code == "truncated"

    def test_nobody_speaks_before_being_welcome(self) -> None:
        initiator, responder = pair()
        responder.feed(initiator.data_to_send())
        initiator.feed(responder.data_to_send())
        with pytest.raises(HandshakeError) as error:
            responder.feed(initiator.data_to_send() + b"frame")
        assert error.value.code == "out_of_turn"
        assert responder.claim is None

        initiator, responder = pair()
        claimed(initiator, responder)
        with pytest.raises(HandshakeError):
            responder.feed(b"frame")

    def test_role_is_known_only_after_hello(self) -> None:
        responder = Responder(NODE_KEY, "n")
        assert responder.role == "unknown"
        with pytest.raises(HandshakeError):
            responder.feed(hello(role="king"))
        assert responder.role == "unknown"

    def test_our_own_messages_are_capped(self) -> None:
        initiator, responder = pair()
        claimed(initiator, responder)
        assert responder.proves(SECRET)
        with pytest.raises(HandshakeError) as error:
            responder.welcome("l", 0.0, settings={"big": "x" * MAX_MESSAGE})
        assert error.value.code == "too_large"

    @settings(deadline=None)
    @given(st.binary(max_size=400))
    def test_rubbish_raises_only_handshake_errors(self, data: bytes) -> None:
        for side, head in ((Responder(NODE_KEY, "n"), PREFACE), (Initiator(AGENT), b"")):
            for prefix in (b"", len(data).to_bytes(2, "big")):
                try:
                    side.feed(head + prefix + data)
                except HandshakeError:
                    break


def test_the_documented_formulas() -> None:
    """docs/reference/link-protocol.md, written out once more from its text alone."""
    initiator, responder = pair()
    hello_bytes = initiator.data_to_send()[10:]
    responder.feed(PREFACE + len(hello_bytes).to_bytes(2, "big") + hello_bytes)
    challenge_framed = responder.data_to_send()
    challenge = body_of(challenge_framed)
    initiator.feed(challenge_framed)
    auth_framed = initiator.data_to_send()
    responder.feed(auth_framed)
    assert responder.proves(SECRET)
    responder.welcome("link-1", 5.0)
    welcome = body_of(responder.data_to_send())

    def h(*parts: bytes) -> bytes:
        return hashlib.sha256(
            b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        ).digest()

    def mac(data: bytes) -> bytes:
        return hmac.new(SECRET, data, "sha256").digest()

    t1 = h(hello_bytes, challenge["body"])
    NODE_KEY.public_key().verify(challenge["signature"], b"underpass link 1 challenge\0" + t1)
    t2 = h(t1, challenge["signature"])
    assert body_of(auth_framed)["proof"] == mac(b"underpass link 1 agent\0" + t2)
    t3 = h(t2, auth_framed[2:])
    assert welcome["proof"] == mac(b"underpass link 1 node\0" + t3 + welcome["body"])
