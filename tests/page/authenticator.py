"""A passkey in software, for responses that no browser makes: of another origin, with a wrong signature, replayed."""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from base64 import urlsafe_b64encode
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

Json = dict[str, Any]

# Flags of the authenticator's data (WebAuthn Level 3, section 6.1).
_PRESENT, _VERIFIED, _HAS_KEY = 0x01, 0x04, 0x40


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Authenticator:
    """One passkey. Members can be changed between calls, which makes the responses wrong."""

    def __init__(self, origin: str, rp_id: str = "localhost") -> None:
        self.origin = origin
        self.rp_id = rp_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.signing_key = self.key
        self.id = secrets.token_bytes(32)
        self.counter = 0

    def register(self, options: Json) -> Json:
        """The answer to creation options, attested with the passkey's own key (`packed`)."""
        client_data = self._client_data("webauthn.create", options["challenge"])
        public = self.key.public_key().public_numbers()
        key = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")})
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + key
        data = self._data(_PRESENT | _VERIFIED | _HAS_KEY) + attested
        attestation = {"fmt": "packed", "authData": data, "attStmt": {"alg": -7, "sig": self._sign(data, client_data)}}
        return self._credential({
            "clientDataJSON": text(client_data), "attestationObject": text(cbor2.dumps(attestation)),
            "transports": ["internal"]})

    def sign(self, options: Json) -> Json:
        """The answer to request options."""
        self.counter += 1
        client_data = self._client_data("webauthn.get", options["challenge"])
        data = self._data(_PRESENT | _VERIFIED)
        return self._credential({
            "clientDataJSON": text(client_data), "authenticatorData": text(data),
            "signature": text(self._sign(data, client_data)), "userHandle": None})

    def _credential(self, response: Json) -> Json:
        return {"id": text(self.id), "rawId": text(self.id), "type": "public-key", "clientExtensionResults": {},
                "authenticatorAttachment": "platform", "response": response}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def _data(self, flags: int) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, self.counter)

    def _sign(self, data: bytes, client_data: bytes) -> bytes:
        return self.signing_key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
