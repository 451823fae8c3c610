"""docs/troubleshooting.md shows what real programs answer. `--renew` writes their answers into the document:

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
from paths import ROOT
from stage import Stage
from symptoms import POLICY, SYMPTOMS
from transcript import Site

DOCUMENT = ROOT / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"^<!-- shown: ([\w-]+) -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REGISTERED = (symptoms_account, symptoms_outages)


def documented() -> dict[str, str]:
    return dict(BLOCK.findall(DOCUMENT.read_text()))


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
        text = DOCUMENT.read_text()
        old = next(match for match in BLOCK.finditer(text) if match[1] == name)
        DOCUMENT.write_text(text[:old.start(2)] + shown + text[old.end(2):])
    assert documented()[name] == shown, "if that is intended, renew the document: see the head of this file"


def test_each_symptom_has_an_output_and_each_output_a_symptom() -> None:
    assert list(documented()) == [name for name in documented() if name in SYMPTOMS]
    assert documented().keys() == SYMPTOMS.keys()
    assert len(BLOCK.findall(DOCUMENT.read_text())) == len(SYMPTOMS) >= 20


def test_each_symptom_says_what_it_means_and_what_to_do() -> None:
    sections = re.split(r"^### ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    for one in sections:
        title = one.partition("\n")[0]
        for part in ("**Look**", "**It means**", "**Do**"):
            assert part in one, f"{title} has no {part}"
        assert BLOCK.search(one), f"{title} shows no output"


def test_each_alert_leads_to_a_symptom() -> None:
    """Runbooks link to the symptoms of the alerts that users notice."""
    runbooks = re.split(r"^## ", (ROOT / "docs" / "alerts.md").read_text(), flags=re.MULTILINE)[1:]
    linked = {one.partition("\n")[0] for one in runbooks if "troubleshooting.md#" in one}
    rules = yaml.safe_load((ROOT / "charts" / "cognito-authz" / "files" / "rules.yaml").read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert {name for name, rule in alerts.items() if rule["labels"]["severity"] == "critical"} <= linked
