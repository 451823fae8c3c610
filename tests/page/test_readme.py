"""The example in the README: each request is sent as it stands, and each line that is shown is in the response."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import web
from conftest import ROOT, User
from stack import Stack

# The address that the README shows.
SHOWN = "http://127.0.0.1:18000"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def example() -> Iterator[tuple[str, list[str]]]:
    """The commands of the README's example, each with the lines that follow it."""
    block = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(block) == 1
    for part in block[0].split("$ ")[1:]:
        command, *lines = part.strip().split("\n")
        yield command, lines


def send(command: str, stack: Stack, token: str) -> str:
    """Sends the request of a `curl` command, and returns the body of the response."""
    words = shlex.split(command.replace("$TOKEN", token), comments=True)
    assert words.pop(0) == "curl"
    method, url, headers = "GET", "", []
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers.append((name, value))
        else:
            assert word.startswith(SHOWN), command
            url = stack.over_tcp + word.removeprefix(SHOWN)
    return web.request(method, url, headers).body.decode()


def general(text: str) -> str:
    """A text without what differs from run to run: ids, and the part of them that the README leaves out."""
    return re.sub(r"[0-9a-f]{8}-…", "ID", UUID.sub("ID", text))


def test_the_example_shows_what_happens(stack: Stack, user: User) -> None:
    stack.cognito.add_to_group(stack.pool, user.email, "readers")
    token = stack.cognito.sign_in(stack.long_client, user.email, user.password).access
    client = f'"{stack.long_client}"'
    for command, lines in example():
        body = general(send(command, stack, token).replace(client, '"CLIENT"'))
        for line in lines:
            wanted = re.sub(r'(x-auth-client-id", )"\w+"', r'\1"CLIENT"', general(line))
            assert wanted in body, f"{command}\n{wanted}\n{body}"


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
