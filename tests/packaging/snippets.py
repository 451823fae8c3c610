"""Snippets of the documents that are parts of tested files. Start from `found`.

A comment in front of a code block says where its text comes from. GitHub and the site show nothing of it:

    <!-- snippet: deploy/istio/gateway.yaml HTTPRoute/account -->

After the file's path comes the part, if it is not the whole file:

- `KIND/NAME`: the Kubernetes object of this kind and name, without the comment above it;
- any other word: the lines between `# snippet: NAME` and `# end of snippet: NAME`. These parts may overlap.

`test_snippets.py` compares the blocks with the files, and writes them with `--renew`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

# The comment, and the block that follows it. Both have the indentation of the list item that they belong to.
MARKED = re.compile(
    r"^(?P<indent> *)<!-- snippet: (?P<path>\S+)(?: (?P<part>\S+))? -->\n+"
    r"(?P<open> *```[a-z]+\n)(?P<text>.*?)(?P<close>^ *```$)",
    re.MULTILINE | re.DOTALL,
)
COMMENT = re.compile(r"^ *<!-- *snippet\b", re.MULTILINE)
MARK = re.compile(r"^ *# (?:end of )?snippet: .*\n", re.MULTILINE)


class Wrong(Exception):
    """A comment names a file or a part that does not exist, or no block follows it."""


@dataclass(frozen=True)
class Snippet:
    """A block of a document with such a comment."""

    document: Path
    source: str
    text: str
    wanted: str

    def is_same(self) -> bool:
        return self.text == self.wanted


def part_of(text: str, part: str | None) -> str:
    """A part of a file's text, without the marks of parts, and moved to the left margin."""
    if part is None:
        found = text
    elif "/" in part:
        found = one_object(text, *part.split("/", 1))
    else:
        lines = rf"^ *# snippet: {re.escape(part)}\n(.*?)^ *# end of snippet: {re.escape(part)}\n"
        marked = re.findall(lines, text, re.MULTILINE | re.DOTALL)
        if len(marked) != 1:
            raise Wrong(f"the file has `# snippet: {part}` with its end {len(marked)} times")
        found = marked[0]
    return textwrap.dedent(MARK.sub("", found)).strip("\n") + "\n"


def one_object(text: str, kind: str, name: str) -> str:
    """The only Kubernetes object of a kind and name in a file."""
    found = [one for one in re.split(r"^---\n", text, flags=re.MULTILINE)
             if re.search(rf"^kind: {kind}$", one, re.MULTILINE)
             and re.search(rf"^metadata:\n(?:  .*\n)*?  name: {name}$", one, re.MULTILINE)]
    if len(found) != 1:
        raise Wrong(f"the file has {len(found)} objects {kind}/{name}")
    return re.sub(r"\A(?:#.*\n|\n)+", "", found[0])


def renewed(document: Path) -> tuple[str, list[Snippet]]:
    """The text of a document with its snippets renewed, and the snippets as they are."""
    text, snippets = document.read_text(), []

    def renew(match: re.Match[str]) -> str:
        source = " ".join(filter(None, (match["path"], match["part"])))
        path = ROOT / match["path"]
        try:
            if not path.is_file():
                raise Wrong("there is no such file")
            wanted = part_of(path.read_text(), match["part"])
        except Wrong as error:
            raise Wrong(f"{document.relative_to(ROOT)}: {source}: {error}") from None
        wanted = textwrap.indent(wanted, match["indent"])
        snippets.append(Snippet(document, source, match["text"], wanted))
        return match[0].removesuffix(match["text"] + match["close"]) + wanted + match["close"]

    new = MARKED.sub(renew, text)
    if len(COMMENT.findall(text)) != len(snippets):
        raise Wrong(f"{document.relative_to(ROOT)}: a comment `snippet` without a path, or without a block after it")
    return new, snippets
