"""The documentation site: it builds, shows what GitHub shows, and works without other hosts.

docs/site/build fails for a page that is missing in the navigation and for a link that leads nowhere; the tests at the
end make it fail.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import posixpath
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml

import pages
from commands import run
from paths import ROOT
from site_html import Page, content

BUILD = ROOT / "docs" / "site" / "build"
# A sub-path, as GitHub Pages serves the site of a project.
PREFIX = "/cognito-authz/"
# A page that does not exist. tests/it/tidy.rs finds names of such pages in texts.
NEW = str(Path("new").with_suffix(".md"))
README = "README.md"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, as one command builds it."""
    folder = tmp_path_factory.mktemp("site") / "html"
    done = run(sys.executable, BUILD, "--output", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@functools.cache
def sources() -> list[str]:
    """Paths of the documents, in the order of the navigation."""
    config = yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text())
    return list(pages.files_in(pages.expand(ROOT, config["nav"])))


def built(site: Path, source: str) -> Page:
    """The page of a document."""
    path = Path(source)
    folder = path.parent if path.name == "README.md" else path.with_suffix("")
    return Page(site / folder / "index.html")


def every_page(site: Path) -> Iterator[tuple[str, Page]]:
    for path in sorted(site.rglob("*.html")):
        yield str(path.relative_to(site)), Page(path)


def copy_of_the_documents(target: Path) -> Path:
    """A project with the same files, of which `docs` and `deploy` can be changed. It cannot change the tools."""
    own = {"docs", "deploy", "tests", ".ci"}
    target.mkdir()
    for path in ROOT.iterdir():
        if path.name not in {"target", ".git", *own}:
            (target / path.name).symlink_to(path)
    derived = shutil.ignore_patterns("venv", "node_modules", "__pycache__")
    for name in own:
        shutil.copytree(ROOT / name, target / name, ignore=derived)
    (target / "tests/tools/setup").write_text("#!/bin/sh\necho 'the pinned generator is not here' >&2\nexit 1\n")
    return target


# ------------------------------------------------------------------------------------------------ what is on it


def test_every_document_is_a_page_and_in_the_navigation(site: Path) -> None:
    assert set(sources()) == set(pages.documents(ROOT))
    assert {"docs/policy.md", "charts/cognito-authz/README.md", "deploy/istio/README.md"} <= set(sources())
    home = Page(site / "index.html")
    navigation = {url for _, _, url in content(home.html, "nav").urls}
    for source in sources():
        page = built(site, source)
        assert page.path.is_file(), source
        folder = posixpath.relpath(page.path.parent, site)
        assert ("." if folder == "." else f"{folder}/") in navigation, f"{source} is not in the navigation"


def test_reading_order_is_the_one_of_the_navigation(site: Path) -> None:
    following = built(site, sources()[0])
    for source in sources():
        page = built(site, source)
        assert page.path.samefile(following.path), source
        found = re.search(r'<link rel="next" href="([^"]+)">', page.html)
        if found:
            following = Page((page.path.parent / found[1] / "index.html").resolve())
    assert found is None, "the last document has a next page"


def test_pages_show_what_github_shows(site: Path) -> None:
    """The generator reads another dialect of Markdown: a list that it takes for a paragraph is found here."""
    for source in sources():
        github = content(pages.PARSER.render((ROOT / source).read_text()))
        article = built(site, source).article
        kinds = ("h1", "h2", "h3", "h4", "ul", "ol", "li", "table", "tr", "td", "th", "pre", "img", "em", "strong")
        shown = {kind: article.counts[kind] for kind in kinds}
        assert shown == {kind: github.counts[kind] for kind in kinds}, source
        assert "".join(article.words) == "".join(github.words), source


def test_pages_have_version_edit_link_and_settings(site: Path) -> None:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for source in sources():
        html = built(site, source).html
        assert f">{version}, development<" in html, source
        assert f'href="{pages.REPOSITORY}/edit/main/{source}"' in html, source
        assert '"content.code.copy"' in html, source
        assert html.count('data-md-color-media="(prefers-color-scheme') == 3, source
        icon = re.search(r'<link rel="icon" href="([^"]+)">', html)
        assert icon, source
        assert (built(site, source).path.parent / icon[1]).samefile(site / "docs/icon.svg"), source
    assert (site / "docs/icon.svg").read_bytes() == (ROOT / "docs/icon.svg").read_bytes()


def test_a_release_names_its_version_and_its_files(tmp_path: Path) -> None:
    done = run(sys.executable, BUILD, "--release", "--output", tmp_path / "site", "--url", "https://docs.test/v/")
    assert done.returncode == 0, done.stdout + done.stderr
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    html = Page(tmp_path / "site/deploy/envoy/index.html").html
    assert f">{version}<" in html
    assert f'href="{pages.REPOSITORY}/blob/v{version}/deploy/envoy/envoy.yaml' in html
    assert f'href="{pages.REPOSITORY}/blob/main/' not in html
    assert '<link rel="canonical" href="https://docs.test/v/deploy/envoy/">' in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


# ------------------------------------------------------------------------------------------------ links


def test_pages_begin_with_what_they_are_for() -> None:
    """After the heading comes a sentence, and not a list, a table or code."""
    for source in sources():
        heading, paragraph = (token.type for token in pages.PARSER.parse((ROOT / source).read_text())[0:4:3])
        assert (heading, paragraph) == ("heading_open", "paragraph_open"), source


def test_links_and_images_of_the_site_lead_somewhere(site: Path) -> None:
    ids = {path: set(page.everything.ids) for path, page in every_page(site)}
    wrong = []
    seen = 0
    for path, page in every_page(site):
        for _, _, url in page.everything.urls:
            if urlsplit(url).scheme:
                continue
            # The page for missing addresses does not know its own address, so its links start at the host.
            name, anchor = urldefrag(url.removeprefix(PREFIX) if path == "404.html" else url)
            base = "" if path == "404.html" else posixpath.dirname(path)
            target = posixpath.normpath(posixpath.join(base, unquote(name))) if name else path
            if (site / target).is_dir():
                target = posixpath.normpath(posixpath.join(target, "index.html"))
            seen += 1
            if target.startswith((".", "/")) or not (site / target).is_file():
                wrong.append(f"{path}: {url}")
            elif anchor and target.endswith(".html") and unquote(anchor) not in ids[target] | {"__comments"}:
                wrong.append(f"{path}: {url}: no such anchor")
    assert not wrong, "\n".join(wrong)
    assert seen > 1000


def test_anchors_are_those_of_github(site: Path) -> None:
    """A link to a heading works on GitHub and on the site."""
    for source in sources():
        headings = re.findall(r'<h[1-6] id="([^"]+)"', built(site, source).html)
        tokens = pages.PARSER.parse((ROOT / source).read_text())
        expected: list[str] = []
        for opening, inline in itertools.pairwise(tokens):
            if opening.type != "heading_open":
                continue
            text = pages.text_of(inline)
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            before = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in expected)
            expected.append(f"{anchor}-{before}" if before else anchor)
        assert headings == expected, source


def test_links_to_files_lead_to_the_repository(site: Path) -> None:
    seen = set()
    for path, page in every_page(site):
        for _, _, url in page.everything.urls:
            if found := re.match(rf"{pages.REPOSITORY}/(blob|tree|edit)/main/([^#]+)", url):
                kind, name = found.groups()
                assert (ROOT / name).is_dir() if kind == "tree" else (ROOT / name).is_file(), f"{path}: {url}"
                assert kind == "edit" or name not in sources(), f"{path}: {url} is a page of the site"
                seen.add(name)
    assert {"deploy/envoy/envoy.yaml", "docs/config.schema.json"} <= seen


def test_links_to_other_hosts_are_well_formed(site: Path) -> None:
    for path, page in every_page(site):
        for tag, _, url in page.everything.urls:
            parts = urlsplit(url)
            if tag != "a" or not parts.scheme:
                continue
            assert parts.scheme in {"https", "mailto"}, f"{path}: {url}"
            host = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc)
            assert host or parts.scheme == "mailto", f"{path}: {url}"


# ------------------------------------------------------------------------------------------------ other hosts


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for path, page in every_page(site):
        for tag, _, url in page.everything.urls:
            # `canonical` names the page itself; nothing is loaded from there.
            if tag not in {"a", "link"} or (tag == "link" and f'rel="canonical" href="{url}"' not in page.html):
                assert not re.match(r"[a-z]*:?//", url), f"{path}: <{tag}> {url}"
        # The theme would load these from elsewhere: stars of the repository, and the renderer of diagrams.
        assert 'data-md-component="source"' not in page.html, path
        assert not {"mermaid", "arithmatex"} & page.everything.classes, f"{path}: draw diagrams as text or SVG"
    for style in site.rglob("*.css"):
        for url in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", style.read_text()):
            assert not re.match(r"(?!data:)[a-z]*:?//", url), f"{style}: {url}"


# ------------------------------------------------------------------------------------------------ search


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("missing_credential", "docs/reference/reasons.md"),
        ("--trusted-hops", "docs/reference/options.md"),
        ("x-auth-groups", "docs/reference/headers.md"),
        ("invalid_request", "docs/reference/account-errors.md"),
        ("checks_total", "docs/reference/metrics.md"),
        ("shadow mode", "docs/policy-testing.md"),
        ("forgot-password", "docs/account-api.md"),
        ("EnvoyFilter", "deploy/istio/README.md"),
        ("SecurityPolicy", "deploy/envoy-gateway/README.md"),
        ("forward_auth", "deploy/caddy/README.md"),
        ("oauth2-proxy", "docs/migrate.md"),
        ("--revocation-required", "docs/revocation.md"),
    ],
)
def test_search_finds_what_a_reader_looks_for(site: Path, words: str, page: str) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    separator = re.compile(index["config"]["separator"])

    def terms(text: str) -> set[str]:
        return {word.lower() for word in separator.split(re.sub(r"<[^>]+>", " ", text)) if word}

    folder = posixpath.relpath(built(site, page).path.parent, site)
    there = [entry for entry in index["docs"] if entry["location"].partition("#")[0].rstrip("/") == folder]
    found = [entry for entry in there if terms(words) <= terms(f"{entry['title']} {entry['text']}")]
    assert found, f"a search for “{words}” does not find {page}"


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (f"docs/{NEW}", "# New\n", f"docs/site/mkdocs.yml: nav lacks docs/{NEW}"),
        (f"deploy/new/{README}", "# New\n", f"docs/site/mkdocs.yml: nav lacks deploy/new/{README}"),
        ("docs/doctor.md", f"# Doctor\n\n[x]({NEW})\n", f"docs/doctor.md: {NEW} does not exist"),
        ("docs/doctor.md", "# Doctor\n\n![x](gone.png)\n", "docs/doctor.md: gone.png does not exist"),
        ("docs/doctor.md", "# Doctor\n\n[x](../../outside)\n", "docs/doctor.md: ../../outside does not exist"),
        ("docs/doctor.md", "# Doctor\n\n```mermaid\ngraph TD\n```\n", "docs/doctor.md: the site draws no Mermaid"),
        ("docs/doctor.md", "# Doctor\n\n[x](policy.md#gone)\n", "does not contain an anchor '#gone'"),
    ],
)
def test_the_build_fails_for_what_a_reader_could_not_reach(tmp_path: Path, file: str, text: str, said: str) -> None:
    root = copy_of_the_documents(tmp_path / "copy")
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(text)
    done = run(sys.executable, root / "docs/site/build", cwd=root)
    assert done.returncode == 1, done.stdout
    assert said in done.stderr, done.stderr


def test_the_build_fails_for_a_page_that_is_gone(tmp_path: Path) -> None:
    root = copy_of_the_documents(tmp_path / "copy")
    (root / "docs/doctor.md").unlink()
    done = run(sys.executable, root / "docs/site/build", cwd=root)
    assert done.returncode == 1, done.stdout
    assert "docs/site/mkdocs.yml: nav names docs/doctor.md, which does not exist" in done.stderr, done.stderr
    assert ": doctor.md does not exist" in done.stderr, done.stderr


# ------------------------------------------------------------------------------------------------ what is published


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    done = run("git", "-C", root, *identity, *arguments)
    assert done.returncode == 0, done.stderr


def publish(root: Path, site: Path) -> dict[str, str]:
    """Runs .ci/build-site; returns the version and the canonical address that each home page names."""
    tools = root.parent / "tools"
    tools.mkdir(exist_ok=True)
    if not (tools / "python3").exists():
        # Not a link: an interpreter finds its packages by the path that it is called by.
        (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tools / "python3").chmod(0o755)
    done = run(root / ".ci/build-site", site, cwd=root, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for page in (site / "index.html", site / "main/index.html"):
        if page.is_file():
            version = re.search(r'md-source__fact--version">([^<]+)<', page.read_text())
            address = re.search(r'<link rel="canonical" href="([^"]+)"', page.read_text())
            assert version, page
            assert address, page
            found[address[1]] = version[1]
    return found


def test_the_latest_release_is_published_at_the_root_and_main_below_it(tmp_path: Path) -> None:
    root = copy_of_the_documents(tmp_path / "copy")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    url = yaml.safe_load((root / "docs/site/mkdocs.yml").read_text())["site_url"]
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "First")
    # A tag of another form is no release.
    git(root, "tag", "v9.9.9-rc1")
    assert publish(root, tmp_path / "before") == {url: f"{version}, development"}

    git(root, "tag", f"v{version}")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Second")
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    expected = {url: version, f"{url}main/": f"{version}, development"}
    assert publish(root, tmp_path / "main") == expected
    # The same from the tag: main is not the checkout then.
    git(root, "checkout", "--quiet", f"v{version}")
    assert publish(root, tmp_path / "tag") == expected
    assert run("git", "-C", root, "worktree", "list").stdout.count("\n") == 1
