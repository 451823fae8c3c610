"""Client of the emulator (ministack): the operations of Cognito's user-pool API that the stack and the tour need."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import web
from processes import Failed

REGION = "us-east-1"

# Scopes of tokens from the hosted pages. The account API needs the last one to change a user's account and to sign the
# user out everywhere.
SCOPES = ("openid", "email", "profile", "aws.cognito.signin.user.admin")

# AWS requires a signature for operations on pools. The emulator reads the region from this header and ignores the
# signature.
SIGNED = (
    "authorization",
    f"AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/cognito-idp/aws4_request, SignedHeaders=host, Signature=x",
)


@dataclass(frozen=True)
class Tokens:
    access: str
    id: str


class Cognito:
    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, operation: str, *, signed: bool = False, **members: Any) -> dict[str, Any]:
        """Calls an operation and returns its result.

        An error message names the operation and Cognito's error, never the parameters: they hold passwords.
        """
        headers = [("content-type", "application/x-amz-json-1.1"),
                   ("x-amz-target", f"AWSCognitoIdentityProviderService.{operation}")]
        answer = web.request("POST", self.url, [*headers, SIGNED] if signed else headers,
                             json.dumps(members).encode())
        body = answer.json() if answer.body else {}
        if answer.status != 200 or not isinstance(body, dict):
            name = body.get("__type", "no error name") if isinstance(body, dict) else "no JSON"
            raise Failed(f"the emulator answered {operation} with {answer.status} ({name})")
        return body

    def create_pool(self, name: str) -> str:
        """Creates a pool as docs/cognito.md describes it and returns its id.

        Users sign in with a verified e-mail address and, if they set one up, an authenticator app.
        """
        pool: str = self.call(
            "CreateUserPool", signed=True, PoolName=name, UsernameAttributes=["email"],
            AutoVerifiedAttributes=["email"],
            Policies={"PasswordPolicy": {"MinimumLength": 12, "RequireUppercase": True, "RequireLowercase": True,
                                         "RequireNumbers": True, "RequireSymbols": False}})["UserPool"]["Id"]
        self.call("SetUserPoolMfaConfig", signed=True, UserPoolId=pool, MfaConfiguration="OPTIONAL",
                  SoftwareTokenMfaConfiguration={"Enabled": True})
        return pool

    def create_client(self, pool: str, name: str, *, token_seconds: int, callbacks: Sequence[str] = (),
                      logouts: Sequence[str] = ()) -> str:
        """Creates an app client without a secret and returns its id.

        Access tokens last `token_seconds`; Cognito's default is an hour, its minimum five minutes. With `callbacks`,
        users can also sign in on the hosted pages, which then redirect to one of these URLs, and sign out there, which
        redirects to one of `logouts`.
        """
        hosted: dict[str, Any] = {} if not callbacks else {
            "CallbackURLs": list(callbacks), "LogoutURLs": list(logouts), "SupportedIdentityProviders": ["COGNITO"],
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

    def create_user(self, pool: str, email: str) -> str:
        """Creates a user with a verified address, and returns the password."""
        password = f"{secrets.token_urlsafe(18)}aA1"
        self.call("AdminCreateUser", signed=True, UserPoolId=pool, Username=email, MessageAction="SUPPRESS",
                  UserAttributes=[{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}])
        self.call("AdminSetUserPassword", signed=True, UserPoolId=pool, Username=email, Password=password,
                  Permanent=True)
        return password

    def add_to_group(self, pool: str, email: str, group: str) -> None:
        self.call("AdminAddUserToGroup", signed=True, UserPoolId=pool, Username=email, GroupName=group)

    def mail(self, email: str) -> list[dict[str, str]]:
        """Mails to this address in the emulator's outbox, newest first.

        The address is compared without regard to case, like the pool's user names.
        """
        accounts = (web.get(f"{self.url}/_ministack/ses/messages").json() or {}).get("messages", {})
        return [{"subject": message["Subject"], "text": message["BodyText"]}
                for messages in accounts.values() for message in reversed(messages)
                if email.lower() in map(str.lower, message["To"])]

    def mailed_code(self, email: str) -> str:
        """The six-digit code in the newest mail to this address that has one."""
        for message in self.mail(email):
            code = re.search(r"\b\d{6}\b", message["text"])
            if code:
                return code.group()
        raise Failed(f"the emulator has sent no mail with a code to {email}")

    def sign_in(self, client: str, email: str, password: str) -> Tokens:
        result = self.call("InitiateAuth", ClientId=client, AuthFlow="USER_PASSWORD_AUTH",
                           AuthParameters={"USERNAME": email, "PASSWORD": password})["AuthenticationResult"]
        return Tokens(result["AccessToken"], result["IdToken"])
