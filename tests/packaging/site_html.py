"""Reads the pages of the documentation site as a browser does, without one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

# Elements that have no end.
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Content(HTMLParser):
    """What a document consists of."""

    # Only what is in this element, or everything.
    inside: str | None = None
    # Elements whose `class` contains one of these words are left out.
    without: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    # Element, attribute, URL.
    urls: list[tuple[str, str, str]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _depth: int = 0
    _hidden: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = set(given.get("class", "").split())
        if tag not in VOID:
            self._depth += tag == self.inside or bool(self._depth)
            self._hidden += bool(classes & self.without or tag in {"script", "style"} or self._hidden)
        if self._hidden or (self.inside and not self._depth):
            if tag == "script" and "src" in given and not self.inside:
                self.urls.append((tag, "src", given["src"]))
            return
        self.counts[tag] += 1
        self.classes |= classes
        if "id" in given:
            self.ids.append(given["id"])
        self.urls += [(tag, name, given[name]) for name in ("href", "src", "srcset", "poster") if name in given]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._depth = max(self._depth - 1, 0)
            self._hidden = max(self._hidden - 1, 0)

    def handle_data(self, data: str) -> None:
        if not self._hidden and (self._depth or not self.inside):
            self.words += data.split()


def content(html: str, inside: str | None = None, without: frozenset[str] = frozenset()) -> Content:
    """What a document, or the element `inside` of it, consists of."""
    found = Content(inside, without)
    found.feed(html)
    found.close()
    return found


@dataclass(frozen=True)
class Page:
    """A page of the site."""

    path: Path

    @cached_property
    def html(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def everything(self) -> Content:
        return content(self.html)

    @cached_property
    def article(self) -> Content:
        """What the document says, without what the generator adds to it."""
        return content(self.html, "article", frozenset({"headerlink", "md-content__button", "linenos"}))
