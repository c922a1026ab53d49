"""The link handshake: who is at each end, proved both ways before any stream may open.

Pure objects: feed bytes, take bytes out, ask for the result. See docs/adr/0003-handshake.md for
why it is built this way and docs/reference/link-protocol.md for the bytes.

The dialling side is an :class:`Initiator`, the gateway a :class:`Responder`::

    Initiator                                     Responder
      UNDPASS1 HELLO{versions, role, id, nonce, X25519}  ─►
                         ◄─  CHALLENGE{body{version, node, nonce, X25519, node key}, signature}
      AUTH{proof | sealed token}  ─►
                         ◄─  WELCOME{body{link id, time, settings}, proof}  or  REFUSE

Every message is ``length u16 big-endian`` + msgpack. The signature, the proofs and the sealed
token are all bound to the hash of the exact bytes exchanged before them, so nothing can be
replayed, spliced into another handshake, or altered (version list included) without notice.
"""

from underpass.wire.handshake.initiator import AgentIdentity, ClientIdentity, Established, Initiator
from underpass.wire.handshake.messages import MAX_MESSAGE, PREFACE, VERSION, HandshakeError, Refused
from underpass.wire.handshake.responder import Claim, Responder

__all__ = [
    "MAX_MESSAGE",
    "PREFACE",
    "VERSION",
    "AgentIdentity",
    "Claim",
    "ClientIdentity",
    "Established",
    "HandshakeError",
    "Initiator",
    "Refused",
    "Responder",
]
