"""A user's journey with a client that is generated from the OpenAPI document: sign up, confirm, sign in, refresh, read
the profile, get an error, sign out.

`client_python.py URL EMAIL PASSWORD` prints what it got as JSON. The generated package `account_client` is in the
working directory.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TypeVar
from urllib.parse import quote
from urllib.request import urlopen

sys.path.insert(0, ".")

from account_client import AuthenticatedClient, Client
from account_client.api.account import me
from account_client.api.session import logout, refresh
from account_client.api.sign_in import login
from account_client.api.sign_up import register, verify
from account_client.models import (
    Error,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    RegisterRequest,
    Tokens,
    VerifyRequest,
)

T = TypeVar("T")


def of(kind: type[T], answer: object) -> T:
    """The answer, if it is of this kind."""
    assert isinstance(answer, kind), answer
    return answer


def done(answer: T | Error | None) -> T:
    """The answer of a success."""
    assert not isinstance(answer, Error), answer
    assert answer is not None
    return answer


def mailed_code(url: str, email: str) -> str:
    with urlopen(f"{url}/mailbox?to={quote(email)}") as answer:
        (code,) = re.findall(r"\b\d{6}\b", json.load(answer)["messages"][0]["text"])
        return str(code)


def main(url: str, email: str, password: str) -> None:
    anyone = Client(base_url=url)
    user = RegisterRequest(email=email, password=password, name="Grace Hopper")
    registered = done(register.sync(client=anyone, body=user))
    done(verify.sync(client=anyone, body=VerifyRequest(email=email, code=mailed_code(url, email))))
    first = of(Tokens, login.sync(client=anyone, body=LoginRequest(email=email, password=password)))
    second = of(Tokens, refresh.sync(client=anyone, body=RefreshRequest(refresh_token=str(first.refresh_token))))

    signed_in = AuthenticatedClient(base_url=url, token=str(second.access_token))
    profile = done(me.sync(client=signed_in))
    wrong = login.sync_detailed(client=anyone, body=LoginRequest(email=email, password=f"{password}!"))
    incomplete = login.sync_detailed(client=anyone, body=LoginRequest(email=email))
    ended = done(logout.sync(client=signed_in, body=LogoutRequest()))
    after = me.sync_detailed(client=signed_in)
    print(json.dumps({
        "delivery": registered.delivery.attribute,
        "renewed": second.access_token != first.access_token,
        "profile": [profile.attributes["email"], profile.attributes["name"]],
        "wrong": [wrong.status_code, of(Error, wrong.parsed).code],
        "incomplete": [incomplete.status_code, of(Error, incomplete.parsed).code, of(Error, incomplete.parsed).field],
        "scope": ended.scope,
        "after": [after.status_code, of(Error, after.parsed).code],
    }))


main(*sys.argv[1:])
