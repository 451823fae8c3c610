"""Commands of the documents. Start from `commands`, and `requests_of` for those that call the account API."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore import xform_name
from botocore.model import Shape

import pages
from paths import ROOT

# The account API's guide: the first page defines the functions that the commands of all of them use.
ACCOUNT = ["docs/account-api.md", "docs/account-browsers.md", "docs/account-limits.md"]
# The list of symptoms, and the pages that show them.
TROUBLESHOOTING = [page for page in pages.documents(ROOT) if page.startswith("docs/troubleshooting")]

# Separates commands, or the parts of one.
BETWEEN = "();<>|&\n"


@dataclass(frozen=True)
class Block:
    """A code block of a document."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a block: its words, without variables before it, pipes and redirections."""

    block: Block
    variables: dict[str, str]
    words: list[str]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"


def blocks(language: str = "") -> Iterator[Block]:
    """The code blocks of all documents; with `language`, only those."""
    for document in pages.documents(ROOT):
        for token in pages.PARSER.parse((ROOT / document).read_text()):
            if token.type == "fence" and token.map and language in {"", token.info}:
                yield Block(document, token.map[0] + 1, token.info, token.content)


def shell_blocks() -> Iterator[Block]:
    """Blocks of shell commands; of a transcript, the lines after a prompt."""
    for block in blocks():
        if block.language == "sh":
            yield block
        elif typed := re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.MULTILINE):
            yield Block(block.document, block.line, "sh", "\n".join(typed) + "\n")


def functions(document: str) -> dict[str, str]:
    """The shell functions that a document defines or, as a page of a guide, uses: their definitions by name."""
    text = (ROOT / (ACCOUNT[0] if document in ACCOUNT else document)).read_text()
    found = re.finditer(r"^((\w+)\(\) *\{.*?\})(?= *#| *$)", text, re.MULTILINE | re.DOTALL)
    return {each[2]: each[1] for each in found}


def commands(*programs: str) -> Iterator[Command]:
    """Commands of these programs in the documents."""
    for block in shell_blocks():
        yield from (command for command in commands_of(block) if command.words[0].rpartition("/")[2] in programs)


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block, including those in `$(…)`."""
    text = re.sub(r"<<-?\s*'?(\w+)'?(.*?)\n.*?\n\1$", r"\2", block.text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(^|\s)#[^\n]*", r"\1", text).replace("\\\n", " ").replace("$(", " \n ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=BETWEEN)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    skip = False
    for word in [*lexer, "\n"]:
        if word and set(word) <= set("<>"):
            skip = True  # the target of a redirection
        elif word and set(word) <= set(BETWEEN):
            variables = {}
            while words and (given := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
                variables[given[1]] = given[2]
                del words[0]
            if words:
                yield Command(block, variables, words)
            words, skip = [], False
        elif not skip:
            words.append(word)
        else:
            skip = False


def aws_members(shape: Shape, words: list[str]) -> dict[str, Any]:
    """Options of the AWS CLI as members of a call. Raises `KeyError` for one that the call does not have."""
    names = {xform_name(name, "-"): name for name in shape.members}
    members: dict[str, Any] = {}
    for option in (word.removeprefix("--") for word in words if word.startswith("--")):
        if option not in {"query", "output"}:  # of the CLI itself
            members[names[option] if option in names else names[option.removeprefix("no-")]] = option
    return members
