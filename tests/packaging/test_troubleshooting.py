"""The pages of docs/troubleshooting.md show what real programs answer. `--renew` writes their answers into the pages:

    tests/tools/venv/bin/python -m pytest -c tests/packaging/pytest.ini tests/packaging/test_troubleshooting.py --renew
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import symptoms_account
import symptoms_outages
from document_commands import TROUBLESHOOTING
from pages import slug
from paths import ROOT
from stage import Stage
from symptoms import POLICY, SYMPTOMS
from transcript import Site

# Lists the symptoms; the pages have one heading for each.
INDEX = ROOT / "docs" / "troubleshooting.md"
PAGES = [ROOT / page for page in TROUBLESHOOTING if ROOT / page != INDEX]
BLOCK = re.compile(r"^<!-- shown: ([\w-]+) -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REGISTERED = (symptoms_account, symptoms_outages)


def documented() -> dict[str, str]:
    return dict(BLOCK.findall("".join(page.read_text() for page in PAGES)))


def renew(name: str, shown: str) -> None:
    for page in PAGES:
        text = page.read_text()
        old = next((match for match in BLOCK.finditer(text) if match[1] == name), None)
        if old:
            page.write_text(text[:old.start(2)] + shown + text[old.end(2):])


@pytest.fixture(scope="module")
def site(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Stage(binary, tmp_path_factory.mktemp("symptoms")) as stage:
        yield Site(stage, policy=POLICY)


@pytest.mark.parametrize("name", SYMPTOMS)
def test_the_document_shows_what_happens(name: str, binary: Path, site: Site, tmp_path: Path,
                                         pytestconfig: pytest.Config) -> None:
    with Stage(binary, tmp_path) as stage:
        shown = SYMPTOMS[name](stage, site)
    if pytestconfig.getoption("--renew"):
        renew(name, shown)
    assert documented()[name] == shown, "if that is intended, renew the page: see the head of this file"


def test_each_symptom_has_an_output_and_each_output_a_symptom() -> None:
    assert list(documented()) == [name for name in documented() if name in SYMPTOMS]
    assert documented().keys() == SYMPTOMS.keys()
    assert sum(len(BLOCK.findall(page.read_text())) for page in PAGES) == len(SYMPTOMS) >= 20
    assert not BLOCK.search(INDEX.read_text())


def test_each_symptom_says_what_it_means_and_what_to_do() -> None:
    seen = 0
    for page in PAGES:
        for one in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            title = one.partition("\n")[0]
            for part in ("**Look**", "**It means**", "**Do**"):
                assert part in one, f"{title} has no {part}"
            assert BLOCK.search(one), f"{title} shows no output"
            seen += 1
    assert seen == len(SYMPTOMS)


def test_the_index_lists_each_page_and_each_symptom() -> None:
    """In order, under the heading of the page, so that links to a heading of the former single page arrive near it."""
    listed = re.findall(r"^## (.*)\n\n((?:- .*\n)+)", INDEX.read_text(), re.MULTILINE)
    there = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        title, *symptoms = re.findall(r"^##? (.*)$", text, re.MULTILINE)
        there[title] = "".join(f"- [{one}]({page.name}#{slug(one)})\n" for one in symptoms)
    assert dict(listed) == there
    assert len(listed) == len(there)


def test_each_alert_leads_to_a_symptom() -> None:
    """Runbooks link to the symptoms of the alerts that users notice."""
    runbooks = re.split(r"^## ", (ROOT / "docs" / "alerts.md").read_text(), flags=re.MULTILINE)[1:]
    linked = {one.partition("\n")[0] for one in runbooks if "](troubleshooting-" in one}
    rules = yaml.safe_load((ROOT / "charts" / "cognito-authz" / "files" / "rules.yaml").read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert {name for name, rule in alerts.items() if rule["labels"]["severity"] == "critical"} <= linked
