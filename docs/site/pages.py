"""Prepares the Markdown of the repository for the generator of the site: `stage` is the item to start from.

The documents are written for GitHub. The generator reads another dialect of Markdown (Python-Markdown), so a copy of
each page is changed where the two differ: headings get GitHub's anchors, the content of lists is indented by four
spaces, blank lines end the paragraphs that only GitHub ends without them, and `|` in the code of tables has no
backslash. Links to files that are no pages lead to the repository.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = "https://github.com/cognito-authz/cognito-authz"
# Documents that must be in the navigation.
DOCUMENTS = ["*.md", "docs/**/*.md", "charts/*/README.md", "deploy/*/README.md"]
IMAGES = {".gif", ".jpg", ".jpeg", ".png", ".svg", ".webp"}

# GitHub's Markdown, as far as the documents use it.
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
# Code in a line of text.
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


class Failed(Exception):
    """The documents cannot become a site; the message has one problem per line."""


def documents(root: Path) -> list[str]:
    """Paths of the documents that belong on the site."""
    return sorted({str(path.relative_to(root)) for pattern in DOCUMENTS for path in root.glob(pattern)})


# ------------------------------------------------------------------------------------------------ navigation


def expand(root: Path, nav: list[Any]) -> list[Any]:
    """The navigation with a file for each entry: `docs/reference/*` becomes the files that no other entry names."""
    named = set(files_in(nav))

    def entries(items: list[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, str) and "*" in item:
                found = sorted(str(path.relative_to(root)) for path in root.glob(item + ".md"))
                yield from (path for path in found if path not in named)
            elif isinstance(item, dict):
                ((title, value),) = item.items()
                yield {title: list(entries(value)) if isinstance(value, list) else value}
            else:
                yield item

    return list(entries(nav))


def files_in(nav: list[Any]) -> Iterator[str]:
    """Paths of the pages in the navigation, in its order."""
    for item in nav:
        value = next(iter(item.values())) if isinstance(item, dict) else item
        if isinstance(value, list):
            yield from files_in(value)
        else:
            yield value


def problems_of(root: Path, pages: list[str]) -> list[str]:
    """Differences between the navigation and the documents."""
    there = documents(root)
    return [
        *(f"docs/site/mkdocs.yml: nav names {page}, which does not exist" for page in pages if page not in there),
        *(f"docs/site/mkdocs.yml: nav names {page} twice" for page in sorted(set(pages)) if pages.count(page) > 1),
        *(f"docs/site/mkdocs.yml: nav lacks {page}" for page in there if page not in pages),
    ]


# ------------------------------------------------------------------------------------------------ pages


@dataclass(frozen=True)
class Links:
    """Where the links of the pages lead."""

    root: Path
    pages: frozenset[str]
    # Branch or tag of the repository that links to files name.
    ref: str

    def resolve(self, page: str, url: str, image: bool) -> str:
        """The link as the site needs it. Raises `Failed` if it leads nowhere."""
        url = re.sub(rf"^{re.escape(REPOSITORY)}/(?:blob|tree)/main/", self.up(page), url)
        name, hash_, anchor = url.partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return url
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), name))
        if path in self.pages or (image and (self.root / path).is_file()):
            return posixpath.relpath(path, posixpath.dirname(page) or ".") + hash_ + anchor
        if posixpath.join(path, "README.md") in self.pages:
            return self.resolve(page, posixpath.join(name, "README.md") + hash_ + anchor, image)
        if path.startswith("..") or not (self.root / path).exists():
            raise Failed(f"{page}: {url} does not exist")
        kind = "tree" if (self.root / path).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/{self.ref}/{path}{hash_}{anchor}"

    @staticmethod
    def up(page: str) -> str:
        """The way from a page to the root of the repository."""
        return "../" * page.count("/")


def slug(heading: str) -> str:
    """GitHub's anchor of a heading, given its text without markup."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def text_of(inline: Token) -> str:
    """The text of an inline token without markup."""
    return "".join(child.content for child in inline.children or [] if child.type in {"text", "code_inline"})


def convert(text: str, resolve: Callable[[str, bool], str]) -> str:
    """A document in the dialect of the generator. `resolve` takes a URL and whether it is an image's."""
    tokens = PARSER.parse(text)
    lines = with_links(text, tokens, resolve).split("\n")
    add_anchors(lines, tokens)
    unescape_bars(lines, tokens)
    indent_lists(lines, tokens)
    # From the end, so that the numbers of the lines before stay the same.
    for number in sorted(lines_without_blank_before(text.split("\n"), tokens), reverse=True):
        lines.insert(number, "")
    return "\n".join(lines)


def with_links(text: str, tokens: list[Token], resolve: Callable[[str, bool], str]) -> str:
    """Replaces the targets of links and images outside of code."""
    prose = text.split("\n")
    for token in tokens:
        if token.type in {"fence", "code_block"} and token.map:
            for number in range(*token.map):
                prose[number] = "\0" * len(prose[number]) if number < len(prose) else ""
    masked = CODE.sub(lambda code: "\0" * len(code[0]), "\n".join(prose))
    result, done = [], 0
    for link in re.finditer(r"\]\(([^)\s]+)|^\[[^\]\n]+\]: +(\S+)", masked, re.MULTILINE):
        start, end = link.span(1 if link[1] else 2)
        url = text[start:end]
        result += [text[done:start], resolve(url, Path(url.partition("#")[0]).suffix in IMAGES)]
        done = end
    return "".join([*result, text[done:]])


def add_anchors(lines: list[str], tokens: list[Token]) -> None:
    """Gives each heading the anchor that GitHub gives it."""
    used: dict[str, int] = {}
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.map:
            anchor = slug(text_of(inline))
            used[anchor] = used.get(anchor, -1) + 1
            suffix = f"-{used[anchor]}" if used[anchor] else ""
            lines[opening.map[0]] += f" {{#{anchor}{suffix}}}"


def unescape_bars(lines: list[str], tokens: list[Token]) -> None:
    """Writes `|` for `\\|` in the code of tables, where only GitHub needs the backslash."""
    for token in tokens:
        if token.type == "table_open" and token.map:
            for number in range(*token.map):
                lines[number] = CODE.sub(lambda code: code[0].replace("\\|", "|"), lines[number])


def indent_lists(lines: list[str], tokens: Iterable[Token]) -> None:
    """Indents the content of lists by four spaces a level; GitHub needs only the width of the marker."""
    width: dict[int, int] = {}  # of the indentation that GitHub needs, by line
    depth: dict[int, int] = {}
    level = 0
    for token in tokens:
        if token.type == "list_item_open" and token.map:
            first, end = token.map
            marker = re.match(r" *(?:[-*+]|\d+[.)]) +", lines[first])
            assert marker, f"a list starts in the middle of a line: {lines[first]}"
            width.setdefault(first, 0)
            depth[first] = level
            level += 1
            for number in range(first + 1, min(end, len(lines))):
                width[number], depth[number] = len(marker[0]), level
        elif token.type == "list_item_close":
            level -= 1
    for number, needed in width.items():
        if content := lines[number].lstrip(" "):
            more = max(len(lines[number]) - len(content) - needed, 0) if depth[number] and needed else 0
            lines[number] = " " * (4 * depth[number] + more) + content


def lines_without_blank_before(lines: list[str], tokens: Iterable[Token]) -> set[int]:
    """Numbers of the lines where a paragraph ends without a blank line, which only GitHub understands.

    A list, an item after one with several paragraphs, and a table can end it.
    """
    found = set()
    parents: list[int] = []  # first lines of the open items
    ends: list[int] = []  # and the lines after them
    before_last = False  # the item before has several paragraphs
    for token in tokens:
        if not token.map:
            if token.type == "list_item_close":
                before_last = "" in (lines[number].strip() for number in range(parents.pop(), ends.pop()))
            continue
        first, end = token.map
        is_list = token.type in {"bullet_list_open", "ordered_list_open"}
        if first > 0 and lines[first - 1].strip():
            interrupts = (is_list or token.type == "table_open") and parents[-1:] != [first - 1]
            if interrupts or (token.type == "list_item_open" and before_last):
                found.add(first)
        if is_list:
            before_last = False
        elif token.type == "list_item_open":
            parents.append(first)
            ends.append(end)
    return found


def images_in(text: str) -> Iterator[str]:
    """URLs of the images of a document."""
    for token in PARSER.parse(text):
        for child in token.children or []:
            if child.type == "image":
                yield str(child.attrs["src"])


def stage(root: Path, pages: list[str], target: Path, ref: str) -> None:
    """Writes the pages and their images to `target`, each at its path in the repository.

    Raises `Failed` with all problems: pages that are missing or not in the navigation, and links that lead nowhere.
    """
    problems = problems_of(root, pages)
    there = [page for page in pages if (root / page).is_file()]
    links = Links(root, frozenset(there), ref)
    shutil.rmtree(target, ignore_errors=True)

    def copy(path: str) -> None:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target / path)

    copy("docs/icon.svg")
    for page in there:
        text = (root / page).read_text(encoding="utf-8")

        def resolve(url: str, image: bool, page: str = page) -> str:
            try:
                return links.resolve(page, url, image)
            except Failed as failure:
                problems.append(str(failure))
                return url

        if re.search(r"^ *```mermaid", text, re.MULTILINE):
            problems.append(f"{page}: the site draws no Mermaid: use text or an SVG")
        converted = convert(text, resolve)
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        (target / page).write_text(converted, encoding="utf-8")
        for image in images_in(converted):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), image))
            if (root / path).is_file():
                copy(path)
    if problems:
        raise Failed("\n".join(problems))
