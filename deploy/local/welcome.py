"""What `deploy/local/up` prints when the stack is up: addresses, a token, and what to try. Start from `show`."""

from __future__ import annotations

from account import Account
from emulator import Tokens
from stack import DEMO_EMAIL, DEMO_GROUP, DEMO_NAME, PASSKEY_HOST, Stack, make_password


def show(stack: Stack) -> None:
    """Signs the demo user up and prints what to try."""
    password = make_password()
    token = _demo_user(stack, password).access
    url, bearer = stack.over_tcp, '-H "Authorization: Bearer $TOKEN"'
    # A client that is no browser has to say so, if browsers keep sessions in cookies.
    body = "-H 'X-Account-Tokens: body' " if stack.cookies else ""
    print(f"""
The stack is up. In a browser:

  {stack.site}/       demo page: create an account, sign in, call a protected route
  {stack.site}/docs/  reference of the account API
{_passkeys(stack)}{_pages(stack, password)}
Addresses:

  Envoy -> cognito-authz over TCP            {stack.over_tcp}
  Envoy -> cognito-authz over a Unix socket  {stack.over_uds}
  Envoy -> a second replica                  {stack.over_replica or "not started: no redis-server is installed"}
  Envoy's admin port                         {stack.envoy_admin}
  cognito-authz's admin port                 {stack.admin}  (open it in a browser; /readyz /metrics /config)
  Cognito emulator                           {stack.cognito.url}
  Logs                                       {stack.logs}

{DEMO_EMAIL} (group {DEMO_GROUP}) has signed up and in. Her access token is valid only for this emulator,
and only while it runs:

export TOKEN={token}

Try, in another terminal:

curl -i {url}/orders                                      # 401: no token
curl -i {bearer} {url}/orders    # 200, and what the application received
curl -i {bearer} -H 'x-auth-sub: root' {url}/orders  # 200, without the forged header
curl -i -H "Authorization: Bearer ${{TOKEN}}x" {url}/orders  # 401: invalid token
curl -i -X POST {bearer} {body}{url}/auth/logout  # 200; then the token gets 401 `revoked`
curl -s {stack.admin}/metrics | grep checks_total
curl -i {url}/auth/register -H 'Content-Type: application/json' {body}\\
  -d '{{"email": "you@example.com", "password": "Correct-horse-1-battery", "name": "You"}}'
{_redirects(stack)}
Ctrl-C stops everything.""")


def _demo_user(stack: Stack, password: str) -> Tokens:
    account = Account(stack.over_tcp)
    account.done("register", email=DEMO_EMAIL, password=password, name=DEMO_NAME)
    account.done("verify", email=DEMO_EMAIL, code=stack.cognito.mailed_code(DEMO_EMAIL))
    stack.cognito.add_to_group(stack.pool, DEMO_EMAIL, DEMO_GROUP)
    return stack.cognito.sign_in(stack.long_client, DEMO_EMAIL, password)


def _passkeys(stack: Stack) -> str:
    if not stack.passkeys:
        return ""
    url = stack.over_tcp.replace("127.0.0.1", PASSKEY_HOST)
    return f"  {url}/       the same page with passkeys, which need a host name\n"


def _pages(stack: Stack, password: str) -> str:
    if not stack.cookies:
        return ""
    return f"""
  {stack.site}/members  pages that a server renders, without JavaScript: you are sent to sign in, and come back.
                                 {DEMO_EMAIL} has the password {password}
                                 Then try: the same link after two minutes (the session is renewed), several tabs,
                                 the back button, Sign out, and JavaScript switched off.

Use the name localhost, not 127.0.0.1: the hosted pages are at 127.0.0.1, so that they are another site.
"""


def _redirects(stack: Stack) -> str:
    if not stack.cookies:
        return ""
    return f"""
curl -i -H 'Accept: text/html' {stack.site}/members/report?page=2   # 302 to sign in; `return_to` has the page
curl -i {stack.site}/members                                        # 401: no browser, so no redirect
"""
