"""Lambda function: revokes the tokens of a Cognito user at cognito-authz after an administrator has acted on the user.

EventBridge calls it with an event "AWS API Call via CloudTrail" of Cognito. It sends `POST /revocations` to each admin
port in ADMIN_URLS, with the `sub` of the user and the time of the administrator's call. Python's standard library is
enough; Lambda's runtime adds boto3, which is used only to read the token from Secrets Manager.

Environment:
  ADMIN_URLS        base URLs of admin ports, separated by spaces: one with a shared store, else one per replica
  TOKEN_SECRET_ARN  secret of Secrets Manager with the content of --admin-token-file; or
  ADMIN_TOKEN       the token itself
  USER_POOL_IDS     user pools whose events count, separated by spaces (default: all)
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

# Calls of administrators after which tokens that the user already has must not be accepted any more.
ACTIONS = {
    "AdminDisableUser",
    "AdminUserGlobalSignOut",
    "AdminSetUserPassword",
    "AdminResetUserPassword",
    "AdminDeleteUser",
}
# CloudTrail replaces private values by this text.
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
# Waiting time in seconds before each further attempt. EventBridge repeats the whole call later (template.yaml).
PAUSES = (0.2, 0.5, 1.0, 2.0)
TIMEOUT = 5.0
# Statuses that another attempt may change: wrong tokens of others are limited, or the store is lost.
RETRIED = {429, 502, 503, 504}


class NotRevoked(Exception):
    """An event that asks for a revocation did not lead to one. Lambda reports it, and EventBridge repeats the call."""


def handler(event: dict[str, Any], _context: object = None) -> dict[str, Any]:
    """Entry point. The response names what was done, for tests and for calls by hand; EventBridge ignores it."""
    request = revocation(event)
    if request is None:
        return {"revoked": False}
    token = read_token()
    # All of them, also after a failure: the other instances still have to know.
    failures = [failure for url in os.environ["ADMIN_URLS"].split() if (failure := post(url, token, request))]
    if failures:
        raise NotRevoked("; ".join(failures))
    return {"revoked": True}


def revocation(event: dict[str, Any]) -> dict[str, Any] | None:
    """The body of the request for an event; None if the event asks for no revocation."""
    detail = event.get("detail") or {}
    if detail.get("eventSource") != "cognito-idp.amazonaws.com" or detail.get("eventName") not in ACTIONS:
        return None
    # A call that Cognito refused has changed nothing. Calls without an error have no such member, or an empty one.
    if detail.get("errorCode"):
        return None
    parameters = detail.get("requestParameters") or {}
    pool = parameters.get("userPoolId")
    pools = os.environ.get("USER_POOL_IDS", "").split()
    if pools and pool not in pools:
        return None
    sub = (detail.get("additionalEventData") or {}).get("sub")
    if not sub or sub == HIDDEN:
        # The user name is not logged: it can be an e-mail address.
        raise NotRevoked(f"event {detail.get('eventID')} has no additionalEventData.sub")
    request = {"sub": sub, "before": detail["eventTime"], "reason": f"{detail['eventName']}, {detail.get('eventID')}"}
    return {**request, "pool": pool} if pool and pool != HIDDEN else request


def post(base: str, token: str, request: dict[str, Any]) -> str | None:
    """Sends the request to one admin port, again if it fails for a while: it can safely be repeated. Returns what is
    wrong, or None."""
    for pause in (*PAUSES, None):
        problem, may_pass = attempt(base, token, request)
        if problem is None or not may_pass or pause is None:
            break
        time.sleep(pause)
    return problem


def attempt(base: str, token: str, request: dict[str, Any]) -> tuple[str | None, bool]:
    """Sends the request once. Returns what is wrong, or None; and whether another attempt may succeed."""
    target = urllib.parse.urljoin(base.rstrip("/") + "/", "revocations")
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    call = urllib.request.Request(target, data=json.dumps(request).encode(), headers=headers, method="POST")
    try:
        with OPENER.open(call, timeout=TIMEOUT) as response:
            response.read()
            return None, False
    except urllib.error.HTTPError as error:
        with error:
            return f"{base}: status {error.code}: {message(error.read())}", error.code in RETRIED
    except (OSError, http.client.HTTPException) as error:
        return f"{base}: {error}", True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects alone, which would send the token to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


# Without proxies of the environment, for the same reason.
OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def message(body: bytes) -> str:
    """The message of an error response."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return "not a response of an admin port"


def read_token() -> str:
    """The token. It is read for each event, so that a rotated one takes effect."""
    if arn := os.environ.get("TOKEN_SECRET_ARN"):
        import boto3  # noqa: PLC0415 - part of Lambda's runtime, and only needed here

        return str(boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]).strip()
    return os.environ["ADMIN_TOKEN"].strip()
