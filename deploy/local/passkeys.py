"""Passkeys for the local stack: a proxy in front of the emulator, which lacks Cognito's operations for them.

`passkeys.py EMULATOR_URL STATE_DIRECTORY POOL_ID RP_ID ORIGIN...` listens on a free loopback port and prints
`listening on N`.

It answers the four operations that manage passkeys, and the sign-in flow `USER_AUTH`. Every other request goes to the
emulator. The library `webauthn` verifies attestations and signatures as Cognito does: challenge, origin, relying party,
user verification, signature, counter. For a user who has proved a passkey, the emulator issues the tokens: the proxy
signs a refresh token with the pool's key, which the emulator keeps in its state directory, and exchanges it.

Unlike at AWS, passkeys are gone when the process ends, a user can add any number of them, and a sign-in with one asks
for no second factor.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import webauthn
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from webauthn.helpers import bytes_to_base64url, options_to_json_dict
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

import web
from emulator import REGION, SIGNED

Json = dict[str, Any]

_TARGET = "AWSCognitoIdentityProviderService."
_CHALLENGE_SECONDS = 180  # lifetime of a registration, and of a sign-in's session
_PAGE = 20  # passkeys in one response
_REFRESH_SECONDS = 3600

# Reasons that the library gives for a refused registration, and the errors that Cognito has for them.
_REGISTRATION_ERRORS = {
    "challenge": "WebAuthnChallengeNotFoundException",
    "origin": "WebAuthnOriginNotAllowedException",
    "RP ID": "WebAuthnRelyingPartyMismatchException",
    "alg": "WebAuthnCredentialNotSupportedException",
}


class Refused(Exception):
    """An error of Cognito, by its name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass
class User:
    name: str
    sub: str
    email: str


@dataclass
class Passkey:
    key: bytes
    counter: int
    transports: list[str]
    attachment: str | None
    created: float = field(default_factory=time.time)


@dataclass
class Pending:
    """A challenge that was sent and not answered."""

    client: str
    challenge: bytes
    user: User
    until: float = field(default_factory=lambda: time.monotonic() + _CHALLENGE_SECONDS)

    def is_over(self) -> bool:
        return time.monotonic() > self.until


class Passkeys:
    """Cognito's operations for passkeys. Each answers with the members of its response, or raises `Refused`."""

    def __init__(self, emulator: str, state: Path, pool: str, rp_id: str, origins: list[str]) -> None:
        self._emulator = emulator
        self._key = state / "cognito-pool-keys" / f"{pool}-access.pem"
        self._pool = pool
        self._rp_id = rp_id
        self._origins = origins
        self._lock = threading.Lock()
        self._registrations: dict[str, Pending] = {}  # by `sub`
        self._sessions: dict[str, Pending] = {}
        self._passkeys: dict[str, dict[str, Passkey]] = {}  # by `sub` and credential id
        self.operations: dict[str, Callable[[Json], Json]] = {
            "StartWebAuthnRegistration": self._start,
            "CompleteWebAuthnRegistration": self._complete,
            "ListWebAuthnCredentials": self._list,
            "DeleteWebAuthnCredential": self._delete,
        }

    def handle(self, operation: str, body: Json) -> Json | None:
        """Returns the response; `None` if the request is the emulator's."""
        act = self.operations.get(operation)
        if operation == "InitiateAuth" and body.get("AuthFlow") == "USER_AUTH":
            act = self._initiate
        elif operation == "RespondToAuthChallenge":
            act = {"WEB_AUTHN": self._respond, "SELECT_CHALLENGE": self._select}.get(str(body.get("ChallengeName")))
        if act is None:
            return None
        with self._lock:
            self._registrations = {sub: one for sub, one in self._registrations.items() if not one.is_over()}
            self._sessions = {name: one for name, one in self._sessions.items() if not one.is_over()}
            return act(body)

    # ------------------------------------------------------------------------------- the user's passkeys

    def _start(self, body: Json) -> Json:
        user, client = self._owner(body)
        options = webauthn.generate_registration_options(
            rp_id=self._rp_id, rp_name="Local stack", user_id=user.sub.encode(), user_name=user.email,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED),
            exclude_credentials=self._descriptors(user), timeout=_CHALLENGE_SECONDS * 1000)
        self._registrations[user.sub] = Pending(client, options.challenge, user)
        return {"CredentialCreationOptions": options_to_json_dict(options)}

    def _complete(self, body: Json) -> Json:
        user, client = self._owner(body)
        credential = body.get("Credential")
        if not isinstance(credential, dict):
            raise Refused("InvalidParameterException", "Credential is not an object")
        pending = self._registrations.pop(user.sub, None)
        if pending is None:
            raise Refused("WebAuthnChallengeNotFoundException", "No registration was started")
        if pending.client != client:
            raise Refused("WebAuthnClientMismatchException", "Another app client started the registration")
        try:
            made = webauthn.verify_registration_response(
                credential=credential, expected_challenge=pending.challenge, expected_rp_id=self._rp_id,
                expected_origin=self._origins)
        except Exception as refusal:  # the library raises many kinds for malformed input
            raise Refused(_registration_error(refusal), str(refusal)) from refusal
        name = bytes_to_base64url(made.credential_id)
        if any(name in passkeys for passkeys in self._passkeys.values()):
            raise Refused("InvalidParameterException", "The credential is registered already")
        transports = credential["response"].get("transports") or []
        self._passkeys.setdefault(user.sub, {})[name] = Passkey(
            made.credential_public_key, made.sign_count, [str(one) for one in transports],
            credential.get("authenticatorAttachment"))
        return {}

    def _list(self, body: Json) -> Json:
        user, _ = self._owner(body)
        next_token = str(body.get("NextToken", "0"))
        if not next_token.isdecimal():
            raise Refused("InvalidParameterException", "NextToken is not one of ours")
        start = int(next_token)
        all_of_them = list(self._passkeys.get(user.sub, {}).items())
        page = [{
            "CredentialId": name, "FriendlyCredentialName": f"Passkey {number}", "RelyingPartyId": self._rp_id,
            "AuthenticatorAttachment": passkey.attachment, "AuthenticatorTransports": passkey.transports,
            "CreatedAt": passkey.created,
        } for number, (name, passkey) in enumerate(all_of_them, 1)][start:start + _PAGE]
        rest = {"NextToken": str(start + _PAGE)} if len(all_of_them) > start + _PAGE else {}
        return {"Credentials": page, **rest}

    def _delete(self, body: Json) -> Json:
        user, _ = self._owner(body)
        if self._passkeys.get(user.sub, {}).pop(str(body.get("CredentialId")), None) is None:
            raise Refused("ResourceNotFoundException", "The user has no such passkey")
        return {}

    def _owner(self, body: Json) -> tuple[User, str]:
        """The user of an access token that the emulator accepts, and the app client that the token was issued to."""
        token = str(body.get("AccessToken", ""))
        answer = self._call("GetUser", {"AccessToken": token})
        # The emulator has verified the signature.
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return _user(answer["Username"], answer["UserAttributes"]), claims["client_id"]

    def _descriptors(self, user: User) -> list[PublicKeyCredentialDescriptor]:
        names = self._passkeys.get(user.sub, {})
        return [PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(name)) for name in names]

    # ------------------------------------------------------------------------------------------- sign-in

    def _initiate(self, body: Json) -> Json:
        parameters = body.get("AuthParameters") or {}
        user = self._find(str(parameters.get("USERNAME", "")))
        pending = Pending(str(body.get("ClientId")), secrets.token_bytes(32), user)
        if parameters.get("PREFERRED_CHALLENGE") == "WEB_AUTHN" and self._passkeys.get(user.sub):
            return self._ask(pending)
        session = self._keep(pending)
        return {"ChallengeName": "SELECT_CHALLENGE", "Session": session, "ChallengeParameters": {},
                "AvailableChallenges": ["PASSWORD", *(["WEB_AUTHN"] if self._passkeys.get(user.sub) else [])]}

    def _select(self, body: Json) -> Json:
        pending = self._take(body)
        responses = body.get("ChallengeResponses") or {}
        if responses.get("ANSWER") == "WEB_AUTHN" and self._passkeys.get(pending.user.sub):
            return self._ask(pending)
        if responses.get("ANSWER") == "PASSWORD":
            return self._call("InitiateAuth", {
                "ClientId": pending.client, "AuthFlow": "USER_PASSWORD_AUTH", "AuthParameters": {
                    "USERNAME": pending.user.name, "PASSWORD": str(responses.get("PASSWORD", ""))}})
        raise Refused("InvalidParameterException", "The challenge is not available")

    def _ask(self, pending: Pending) -> Json:
        options = webauthn.generate_authentication_options(
            rp_id=self._rp_id, challenge=pending.challenge, allow_credentials=self._descriptors(pending.user),
            user_verification=UserVerificationRequirement.PREFERRED, timeout=_CHALLENGE_SECONDS * 1000)
        return {"ChallengeName": "WEB_AUTHN", "Session": self._keep(pending), "ChallengeParameters": {
            "CREDENTIAL_REQUEST_OPTIONS": json.dumps(options_to_json_dict(options))}}

    def _respond(self, body: Json) -> Json:
        pending = self._take(body)
        wrong = Refused("NotAuthorizedException", "Incorrect username or password.")
        try:
            credential = json.loads((body.get("ChallengeResponses") or {})["CREDENTIAL"])
            passkey = self._passkeys.get(pending.user.sub, {})[credential["id"]]
        except (KeyError, TypeError, ValueError):
            raise wrong from None
        try:
            proof = webauthn.verify_authentication_response(
                credential=credential, expected_challenge=pending.challenge, expected_rp_id=self._rp_id,
                expected_origin=self._origins, credential_public_key=passkey.key,
                credential_current_sign_count=passkey.counter)
        except Exception as refusal:  # the library raises many kinds for malformed input
            raise wrong from refusal
        passkey.counter = proof.new_sign_count
        return {"ChallengeParameters": {}, "AuthenticationResult": self._tokens(pending)}

    def _keep(self, pending: Pending) -> str:
        session = secrets.token_urlsafe(48)
        self._sessions[session] = pending
        return session

    def _take(self, body: Json) -> Pending:
        """The challenge of a session, which can be answered once, by the app client that it was sent to."""
        pending = self._sessions.pop(str(body.get("Session")), None)
        if pending is None or pending.client != body.get("ClientId"):
            raise Refused("NotAuthorizedException", "Invalid session for the user, session is expired.")
        return pending

    def _tokens(self, pending: Pending) -> Json:
        # A second ago, because the emulator's `GlobalSignOut` ends the refresh tokens of earlier seconds.
        now = int(time.time()) - 1
        refresh = self._sign({
            "sub": pending.user.sub, "iss": f"https://cognito-idp.{REGION}.amazonaws.com/{self._pool}",
            "token_use": "refresh", "client_id": pending.client, "origin_jti": str(uuid.uuid4()),
            "jti": str(uuid.uuid4()), "iat": now, "exp": now + _REFRESH_SECONDS})
        answer = self._call("GetTokensFromRefreshToken", {"ClientId": pending.client, "RefreshToken": refresh})
        return {**answer["AuthenticationResult"], "RefreshToken": refresh}

    def _sign(self, claims: Json) -> str:
        """Signs a token as the emulator does."""
        key = serialization.load_pem_private_key(self._key.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        kid = base64.b64encode(hashlib.sha256(public).digest()).decode()
        parts = [bytes_to_base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": kid}, claims)]
        signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join([*parts, bytes_to_base64url(signature)])

    # -------------------------------------------------------------------------------------- the emulator

    def _find(self, name: str) -> User:
        """A user of the pool. An unknown one is invented, so that a sign-in does not tell who has an account."""
        try:
            answer = self._call("AdminGetUser", {"UserPoolId": self._pool, "Username": name})
        except Refused:
            return User(name, f"unknown {name}", name)
        return _user(answer["Username"], answer["UserAttributes"])

    def _call(self, operation: str, members: Json) -> Json:
        headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", _TARGET + operation)]
        signed = [SIGNED] if operation.startswith("Admin") else []
        answer = web.request("POST", self._emulator, [*headers, *signed], json.dumps(members).encode())
        body = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(body, dict):
            error = body if isinstance(body, dict) else {}
            raise Refused(str(error.get("__type", "InternalErrorException")), str(error.get("message", "")))
        return body


def _user(name: str, attributes: list[dict[str, str]]) -> User:
    by_name = {attribute["Name"]: attribute["Value"] for attribute in attributes}
    return User(name, by_name["sub"], by_name.get("email", name))


def _registration_error(refusal: Exception) -> str:
    """Name of Cognito's error for a registration that the library refuses."""
    if isinstance(refusal, WebAuthnException):
        for reason, name in _REGISTRATION_ERRORS.items():
            if reason in str(refusal):
                return name
    return "InvalidParameterException"


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    passkeys: Passkeys
    emulator: str

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        operation = self.headers.get("x-amz-target", "").removeprefix(_TARGET)
        try:
            members = json.loads(body)
            answer = self.passkeys.handle(operation, members) if isinstance(members, dict) else None
        except Refused as refusal:
            self.answer(400, json.dumps({"__type": refusal.name, "message": str(refusal)}).encode())
        except ValueError:
            self.forward(body)
        else:
            if answer is None:
                self.forward(body)
            else:
                self.answer(200, json.dumps(answer).encode())

    def do_GET(self) -> None:
        self.forward(b"")

    def forward(self, body: bytes) -> None:
        kept = [(name, value) for name, value in self.headers.items()
                if name.lower() not in ("host", "connection", "content-length")]
        answer = web.request(self.command, f"{self.emulator}{self.path}", kept, body)
        self.answer(answer.status, answer.body, answer.header("content-type"))

    def answer(self, status: int, body: bytes, kind: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind or "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing: paths of the emulator can hold codes."""


def main() -> None:
    if len(sys.argv) < 6:
        raise SystemExit("usage: passkeys.py EMULATOR_URL STATE_DIRECTORY POOL_ID RP_ID ORIGIN...")
    emulator, state, pool, rp_id, *origins = sys.argv[1:]
    Proxy.passkeys = Passkeys(emulator, Path(state), pool, rp_id, origins)
    Proxy.emulator = emulator
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
