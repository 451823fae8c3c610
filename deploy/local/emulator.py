"""The Cognito user-pool API, as far as the stack and the tour call it on the emulator (ministack)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import web
from processes import Failed

REGION = "us-east-1"

# What people grant on the hosted pages. The last one is what the account API needs to change their account, and to
# sign them out of everything.
SCOPES = ("openid", "email", "profile", "aws.cognito.signin.user.admin")

# Operations on pools are signed on AWS. The emulator wants the header, for the region in it, and does
# not look at the signature.
_SIGNED = ("authorization", "AWS4-HMAC-SHA256 "
           f"Credential=test/20260101/{REGION}/cognito-idp/aws4_request, SignedHeaders=host, Signature=x")


@dataclass(frozen=True)
class Tokens:
    access: str
    id: str


class Cognito:
    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, operation: str, *, signed: bool = False, **members: Any) -> dict[str, Any]:
        """One operation. Its error is named, its parameters are not: passwords are among them."""
        headers = [("content-type", "application/x-amz-json-1.1"),
                   ("x-amz-target", f"AWSCognitoIdentityProviderService.{operation}")]
        answer = web.request("POST", self.url, [*headers, _SIGNED] if signed else headers,
                             json.dumps(members).encode())
        body = answer.json() if answer.body else {}
        if answer.status != 200 or not isinstance(body, dict):
            name = body.get("__type", "no error name") if isinstance(body, dict) else "no JSON"
            raise Failed(f"the emulator answered {operation} with {answer.status} ({name})")
        return body

    def create_pool(self, name: str) -> str:
        """A pool as docs/cognito.md describes it: people sign in with a verified e-mail address and, if they
        have set one up, an authenticator app."""
        pool: str = self.call(
            "CreateUserPool", signed=True, PoolName=name, UsernameAttributes=["email"],
            AutoVerifiedAttributes=["email"],
            Policies={"PasswordPolicy": {"MinimumLength": 12, "RequireUppercase": True, "RequireLowercase": True,
                                         "RequireNumbers": True, "RequireSymbols": False}})["UserPool"]["Id"]
        self.call("SetUserPoolMfaConfig", signed=True, UserPoolId=pool, MfaConfiguration="OPTIONAL",
                  SoftwareTokenMfaConfiguration={"Enabled": True})
        return pool

    def create_client(self, pool: str, name: str, *, token_seconds: int, callbacks: Sequence[str] = ()) -> str:
        """An app client without a secret, whose access tokens last so long (an hour is Cognito's default, five
        minutes its least). With callbacks, people may also sign in and out on the hosted pages, and are sent back
        there."""
        hosted: dict[str, Any] = {} if not callbacks else {
            "CallbackURLs": list(callbacks), "LogoutURLs": list(callbacks), "SupportedIdentityProviders": ["COGNITO"],
            "AllowedOAuthFlowsUserPoolClient": True, "AllowedOAuthFlows": ["code"],
            "AllowedOAuthScopes": list(SCOPES)}
        client: str = self.call(
            "CreateUserPoolClient", signed=True, UserPoolId=pool, ClientName=name, GenerateSecret=False,
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
            PreventUserExistenceErrors="ENABLED", EnableTokenRevocation=True,
            AccessTokenValidity=token_seconds, TokenValidityUnits={"AccessToken": "seconds"},
            **hosted)["UserPoolClient"]["ClientId"]
        return client

    def create_group(self, pool: str, group: str) -> None:
        self.call("CreateGroup", signed=True, UserPoolId=pool, GroupName=group)

    def add_to_group(self, pool: str, email: str, group: str) -> None:
        self.call("AdminAddUserToGroup", signed=True, UserPoolId=pool, Username=email, GroupName=group)

    def mail(self, email: str) -> list[dict[str, str]]:
        """The mails to this address, the newest first, read from the emulator's outbox. Letters of either case
        are one, as in the pool's user names."""
        accounts = (web.get(f"{self.url}/_ministack/ses/messages").json() or {}).get("messages", {})
        return [{"subject": message["Subject"], "text": message["BodyText"]}
                for messages in accounts.values() for message in reversed(messages)
                if email.lower() in map(str.lower, message["To"])]

    def mailed_code(self, email: str) -> str:
        """The code in the newest mail to this address."""
        for message in self.mail(email):
            code = re.search(r"\b\d{6}\b", message["text"])
            if code:
                return code.group()
        raise Failed(f"the emulator has sent no mail with a code to {email}")

    def sign_in(self, client: str, email: str, password: str) -> Tokens:
        result = self.call("InitiateAuth", ClientId=client, AuthFlow="USER_PASSWORD_AUTH",
                           AuthParameters={"USERNAME": email, "PASSWORD": password})["AuthenticationResult"]
        return Tokens(result["AccessToken"], result["IdToken"])
