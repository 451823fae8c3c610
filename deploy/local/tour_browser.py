"""The part of the tour that shows sign-in by redirect (--cookies): a browser without JavaScript, redirect by redirect.

Start from `sign_in_by_redirect`.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from urllib.parse import quote, urlsplit

import web
from browser import Browser, set_cookies, target
from stack import DEMO_EMAIL, Stack
from tour_tools import Steps
from web import Answer

_PAGE = "/members/report?page=2"
_FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')


def sign_in_by_redirect(tour: Steps, stack: Stack, password: str, checks: Counter[tuple[str, str]]) -> int:
    """Runs these steps, adds the checks that Envoy makes to `checks`, and returns the number of the application's last
    request."""
    return _Redirects(tour, stack, password, checks).walk()


class _Redirects:
    def __init__(self, tour: Steps, stack: Stack, password: str, checks: Counter[tuple[str, str]]) -> None:
        self.tour, self.stack, self.password, self.checks = tour, stack, password, checks
        self.browser = Browser()
        self.reached = 0
        self.site = stack.site

    def walk(self) -> int:
        tour, browser, site = self.tour, self.browser, self.site
        with tour.step("A page without a session: the browser is sent to the hosted page", needed=True):
            self.leads_to_the_hosted_page(_PAGE)
        with tour.step("She signs in there, and comes back to the page that she asked for", needed=True):
            answer = self.sees(self.signs_in(), _PAGE)
            tour.expect(b"Page 2 of the report" in answer.body, "the page, with its query")
            names = browser.names(site)
            tour.say("< cookies", ", ".join(map(_family, names)))
            session = [name for name in names if name.endswith("_token")]
            tour.expect(session == ["__Host-access_token", "__Host-refresh_token"], "a session")
            tour.expect(not [name for name in names if name.startswith("__Host-sign_in.")], "no attempt that is open")
        with tour.step("A script or another client gets 401, not a redirect"):
            answer = web.get(f"{site}{_PAGE}", [("sec-fetch-mode", "cors"), ("accept", "text/html")])
            tour.say("> GET", f"{site}{_PAGE}, from a script: {answer.status}")
            self.checks["deny", "missing_credential"] += 1
            tour.expect((answer.status, answer.header("location")) == (401, None), "status 401")
        with tour.step("The application never receives the session"):
            url = f"{site}/orders"
            answer = browser.go(url)
            self.say(url, answer)
            self.passed(200, answer)
            names = [name for name, _ in (answer.json() or {}).get("headers", [])]
            tour.expect("x-auth-sub" in names and "cookie" not in names, "identity headers, and no cookie")
        with tour.step("The access token expires: two redirects renew the session, and nothing is asked"):
            browser.drop(site, "__Host-access_token")
            answer = self.visit(_PAGE)
            self.checks["deny", "missing_credential"] += 1
            url = target(f"{site}{_PAGE}", answer)
            answer = browser.go(url)
            self.say(url, answer)
            self.sees(target(url, answer), _PAGE)
        with tour.step("A form of another site is refused, her own is not"):
            url = f"{site}/members/notes"
            answer = browser.go(url, form={"note": "forged"}, origin="https://other.example", site="cross-site")
            self.say(url, answer, "POST from https://other.example")
            self.checks["deny", "cross_site"] += 1
            tour.expect((answer.json() or {}).get("reason") == "cross_site", "reason cross_site")
            answer = browser.go(url, form={"note": "mine"}, origin=site, site="same-origin")
            self.say(url, answer, "POST")
            self.passed(303, answer)
            answer = self.sees(target(url, answer), "/members")
            tour.expect(b"mine" in answer.body and b"forged" not in answer.body, "her own note only")
        with tour.step("She signs out, also at the hosted pages"):
            self.signs_out()
        with tour.step("The next visit asks again"):
            self.leads_to_the_hosted_page("/members")
        return self.reached

    def leads_to_the_hosted_page(self, path: str) -> None:
        answer = self.visit(path)
        self.checks["deny", "missing_credential"] += 1
        self.tour.expect(answer.status == 302, "status 302")
        self.tour.expect(answer.header("location") == f"/auth/oauth/sign-in?return_to={quote(path, safe='')}",
                         "a redirect to sign in that keeps the page")
        url = target(f"{self.site}{path}", answer)
        answer = self.browser.go(url)
        self.say(url, answer)
        self.hosted = target(url, answer)
        self.tour.expect(self.hosted.startswith(f"{self.stack.cognito.url}/oauth2/authorize?"), "the hosted page")
        self.form = self.browser.go(self.hosted, site="cross-site")
        self.say(self.hosted, self.form)
        self.tour.expect(self.form.status == 200 and b"password" in self.form.body, "a form for the password")

    def signs_in(self) -> str:
        """Submits the form of the hosted page, and returns the URL that the callback redirects to."""
        fields = {name: html.unescape(value) for name, value in _FIELD.findall(self.form.body.decode())}
        url = f"{self.stack.cognito.url}/login"
        answer = self.browser.go(url, origin=self.stack.cognito.url, site="same-origin",
                                 form={**fields, "username": DEMO_EMAIL, "password": self.password})
        self.say(url, answer, "POST")
        callback = target(url, answer)
        self.tour.expect(callback.startswith(f"{self.site}/auth/oauth/callback?"), "the callback")
        answer = self.browser.go(callback, site="cross-site")
        self.say(callback, answer)
        session = [cookie for cookie in set_cookies(answer) if cookie.name.endswith("_token")]
        self.tour.expect(bool(session) and all({"httponly", "secure", "samesite=lax", "path=/"} <= cookie.attributes
                                               for cookie in session), "cookies that no script can read")
        return target(callback, answer)

    def signs_out(self) -> None:
        browser, url = self.browser, f"{self.site}/auth/oauth/sign-out"
        answer = browser.go(url, form={}, origin=self.site, site="same-origin")
        self.say(url, answer, "POST")
        self.tour.expect(browser.names(self.site) == [], "no cookie")
        url = target(url, answer)
        self.tour.expect(url.startswith(f"{self.stack.cognito.url}/logout?"), "the hosted pages")
        answer = browser.go(url)
        self.say(url, answer)
        answer = self.sees(target(url, answer), "/welcome")
        self.tour.expect(b"You are not signed in" in answer.body, "the user is not signed in")

    def visit(self, path: str) -> Answer:
        answer = self.browser.go(f"{self.site}{path}")
        self.say(f"{self.site}{path}", answer)
        return answer

    def sees(self, url: str, path: str) -> Answer:
        """Opens the URL, which has to be the page `path`, and returns the page."""
        self.tour.expect(url == f"{self.site}{path}", f"a redirect to {path}")
        answer = self.browser.go(url)
        self.say(url, answer)
        self.passed(200, answer)
        return answer

    def passed(self, status: int, answer: Answer) -> None:
        self.checks["allow", ""] += 1
        self.tour.expect(answer.status == status, f"status {status}")
        self.reached = int(answer.header("x-number") or (answer.json() or {}).get("number") or self.reached)

    def say(self, url: str, answer: Answer, method: str = "GET") -> None:
        """Prints a request and where its response redirects to, without values of queries: some are secrets."""
        self.tour.say(f"> {method}", _shown(url))
        to = target(url, answer)
        cookies = ", ".join(f"{'deletes' if 'max-age=0' in cookie.attributes else 'sets'} {_family(cookie.name)}"
                            for cookie in set_cookies(answer))
        parts = [str(answer.status), f"to {_shown(to)}" if to else "", f"({cookies})" if cookies else ""]
        self.tour.say("<", " ".join(part for part in parts if part))


def _family(name: str) -> str:
    """The name of a cookie, without the part that is different in every sign-in."""
    return re.sub(r"^(__Host-sign_in\w*)\..*", r"\1.…", name)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    query = "&".join(part if part.startswith(("return_to=", "page=", "prompt=")) else f"{part.partition('=')[0]}=…"
                     for part in parts.query.split("&") if part)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?' + query if query else ''}"
