"""Pages that the application renders on the server: no JavaScript, and no code for signing in.

cognito-authz decides who reaches them (deploy/local/policy-cookies.yaml). They learn who is signed in from the identity
headers. `answer` returns the page for a request. `/auth/oauth/sign-out` is a route of cognito-authz.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections import defaultdict, deque
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from threading import Lock
from typing import final
from urllib.parse import parse_qs, unquote, urlsplit

Headers = Message  # finds a name in any case

_SIGN_OUT = "/auth/oauth/sign-out"
_MOST_NOTES, _MOST_CHARACTERS, MOST_BYTES = 5, 200, 4096

_STYLE = """
:root { color-scheme: light dark; --ground: #f5f6f4; --card: #fff; --ink: #1c2524; --soft: #55625f; --line: #7d8a87;
  --accent: #0f6b66; --on-accent: #fff; }
@media (prefers-color-scheme: dark) { :root { --ground: #121716; --card: #1b2221; --ink: #e6ebe9; --soft: #a5b1ae;
  --line: #788683; --accent: #63c7bf; --on-accent: #06201e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.55 system-ui, "DejaVu Sans", sans-serif; }
header, main { max-width: 46rem; margin-inline: auto; padding: 1rem clamp(1rem, 4vw, 2rem); }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; justify-content: space-between; }
main { background: var(--card); border: 1px solid var(--line); border-radius: 10px; width: calc(100% - 2rem); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0; padding: 0; list-style: none; }
nav a { display: inline-block; padding-block: .25rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
a { color: var(--accent); text-underline-offset: .2em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { white-space: nowrap; font-weight: 600; }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: 0; }
input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .4rem .6rem; min-height: 2.5rem; flex: 1 1 12rem; min-width: 0; }
button { font: inherit; font-weight: 600; color: var(--on-accent); background: var(--accent); border: 0;
  border-radius: 8px; padding: .4rem 1rem; min-height: 2.5rem; cursor: pointer; }
.soft { color: var(--soft); }
"""

# No script runs. There is no `form-action`: Chromium also applies it to the redirects after a form, and signing out
# redirects to the hosted pages. An application that has one lists the origin of the hosted pages in it.
_HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}

# Pages by path: title and sentence.
_PAGES = {
    "/members": ("Members", "This page is plain HTML. Your browser was sent to sign in when it asked for it."),
    "/members/report": (
        "Report", "A link to this page works before you sign in. Afterwards the browser is here, with the query."),
    "/members/recent": (
        "Recent sign-in", "This page asks you to sign in again if your sign-in is over a minute old (max_auth_age)."),
}

# The newest notes of each user, by `sub`.
_notes: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_MOST_NOTES))
_lock = Lock()


@final
@dataclass(frozen=True)
class Rendered:
    """A response."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes


def owns(path: str) -> bool:
    """`True` if the request is for one of these pages."""
    return urlsplit(path).path == "/welcome" or f"{urlsplit(path).path}/".startswith("/members/")


def answer(method: str, target: str, headers: Headers, body: bytes) -> Rendered:
    """Returns the response to a request."""
    url, sub = urlsplit(target), headers.get("x-auth-sub", "")
    if url.path == "/members/notes" and method == "POST":
        return _keep_note(sub, body)
    if method not in ("GET", "HEAD"):
        return Rendered(HTTPStatus.METHOD_NOT_ALLOWED, {"allow": "GET, HEAD"}, b"")
    if url.path == "/welcome":
        return _page("Welcome", _welcome(headers), headers)
    if url.path not in _PAGES:
        return _page("Not found", "<p>There is no such page.</p>", headers, HTTPStatus.NOT_FOUND)
    title, sentence = _PAGES[url.path]
    content = f"<p>{html.escape(sentence)}</p>\n{_identity(headers)}"
    if url.path == "/members":
        content += _notes_of(sub)
    if url.path == "/members/report":
        query = parse_qs(url.query).get("page", ["1"])[0]
        content += f'<h2 id="totals">Totals</h2>\n<p>Page {html.escape(query)} of the report.</p>\n'
    return _page(title, content, headers)


def _keep_note(sub: str, body: bytes) -> Rendered:
    """Keeps a note. Requests of other sites do not get here: the check refuses them (403 `cross_site`)."""
    note = parse_qs(body.decode(errors="replace")).get("note", [""])[0].strip()[:_MOST_CHARACTERS]
    if note:
        with _lock:
            _notes[sub].appendleft(note)
    return Rendered(HTTPStatus.SEE_OTHER, {"location": "/members", **_HEADERS}, b"")


def _user(headers: Headers) -> str:
    return unquote(headers.get("x-auth-username", ""))


def _identity(headers: Headers) -> str:
    """The identity headers as a table. Values are percent-encoded; lists are separated by commas."""
    groups = [unquote(group) for group in headers.get("x-auth-groups", "").split(",") if group]
    rows = [("User", _user(headers)), ("Groups", ", ".join(groups) or "none"),
            ("App client", unquote(headers.get("x-auth-client-id", ""))),
            ("Scopes", unquote(headers.get("x-auth-scope", "")))]
    cells = "\n".join(
        f'<tr><th scope="row">{name}</th><td id="{name.split()[0].lower()}">{html.escape(value)}</td></tr>'
        for name, value in rows)
    return f"<h2>Signed in as</h2>\n<table>\n{cells}\n</table>\n"


def _notes_of(sub: str) -> str:
    with _lock:
        notes = list(_notes[sub])
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"""<h2>Notes</h2>
<form method="post" action="/members/notes">
<label for="note">Note</label> <input id="note" name="note" maxlength="{_MOST_CHARACTERS}" required>
<button>Keep</button>
</form>
{f'<ul id="notes">{listed}</ul>' if notes else '<p class="soft">None so far.</p>'}
"""


def _welcome(headers: Headers) -> str:
    if _user(headers):
        return f'<p>You are signed in as <strong id="user">{html.escape(_user(headers))}</strong>.</p>'
    return """<p>You are not signed in. This page is public.</p>
<p><a href="/members">Open the pages for members</a>: the browser is sent to sign in, and comes back.</p>"""


def _page(title: str, content: str, headers: Headers, status: HTTPStatus = HTTPStatus.OK) -> Rendered:
    sign_out = f'<form method="post" action="{_SIGN_OUT}"><button>Sign out</button></form>' if _user(headers) else ""
    return Rendered(status, {"content-type": "text/html; charset=utf-8", **_HEADERS}, f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<nav aria-label="Pages"><ul>
<li><a href="/welcome">Welcome</a></li>
<li><a href="/members">Members</a></li>
<li><a href="/members/report?page=2#totals">Report</a></li>
<li><a href="/members/recent">Recent sign-in</a></li>
</ul></nav>
{sign_out}
</header>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
""".encode())
