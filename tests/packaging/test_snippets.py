"""Snippets of the documents are the tested files of `deploy/` and `charts/`: see snippets.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands import output
from paths import ROOT
from snippets import MARKED, Wrong, part_of, renewed


def documents() -> list[Path]:
    """Every document of the project, including those that are not committed yet."""
    listed = output("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    return [ROOT / name for name in sorted(set(listed.split())) if (ROOT / name).is_file()]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_snippets_are_parts_of_tested_files(document: Path, pytestconfig: pytest.Config) -> None:
    new, found = renewed(document)
    if pytestconfig.getoption("--renew"):
        document.write_text(new)
        return
    for one in found:
        assert one.text == one.wanted, f"{document.relative_to(ROOT)} differs from {one.source}: renew with --renew"


def test_objects_in_documents_come_from_files() -> None:
    """No test would cover a Kubernetes object that only a page has."""
    retyped = []
    for document in documents():
        text = MARKED.sub("", document.read_text())
        blocks = re.findall(r"^ *```ya?ml\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        retyped += [f"{document.relative_to(ROOT)}: {block.splitlines()[0]}" for block in blocks
                    if re.search(r"^ *apiVersion: .*\n *kind: ", block, re.MULTILINE)]
    assert not retyped, "\n".join(retyped)


def test_the_shown_parts_are_many() -> None:
    assert sum(len(renewed(document)[1]) for document in documents()) >= 9


FILE = """\
# About the file.
kind: A
metadata:
  name: one
---
# About the object.
kind: A
metadata:
  namespace: somewhere
  name: two
spec:
  # snippet: inner
  a: 1   # why
  # snippet: tail
  b: 2
  # end of snippet: inner
  c: 3
  # end of snippet: tail
"""


def test_a_part_is_an_object_or_marked_lines() -> None:
    assert part_of(FILE, "A/one") == "kind: A\nmetadata:\n  name: one\n"
    assert part_of(FILE, "A/two").endswith("spec:\n  a: 1   # why\n  b: 2\n  c: 3\n")
    assert part_of(FILE, "A/two").startswith("kind: A\n")
    assert part_of(FILE, "inner") == "a: 1   # why\nb: 2\n"
    assert part_of(FILE, "tail") == "b: 2\nc: 3\n"
    assert "snippet" not in part_of(FILE, None)
    for missing in ("A/three", "B/one", "in"):
        with pytest.raises(Wrong):
            part_of(FILE, missing)


def test_a_comment_without_its_block_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snippets.ROOT", tmp_path)
    (tmp_path / "file.yaml").write_text(FILE)
    page = tmp_path / "page"
    for wrong in ("<!-- snippet: file.yaml inner -->\n\nText.\n", "<!-- snippet: none.yaml -->\n```yaml\n```\n",
                  "<!-- snippet: file.yaml none -->\n```yaml\n```\n", "<!-- snippet -->\n```yaml\n```\n"):
        page.write_text(wrong)
        with pytest.raises(Wrong):
            renewed(page)
    page.write_text("- item\n\n  <!-- snippet: file.yaml inner -->\n  ```yaml\n  old: 1\n  ```\n\nText.\n")
    new, [snippet] = renewed(page)
    assert not snippet.is_same()
    assert new == page.read_text().replace("  old: 1\n", "  a: 1   # why\n  b: 2\n")
    page.write_text(new)
    assert renewed(page) == (new, [snippet.__class__(page, snippet.source, snippet.wanted, snippet.wanted)])
