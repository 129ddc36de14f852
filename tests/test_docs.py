import importlib.util
import json
import re
from pathlib import Path

import pytest

from lineproof.detectors.table import DETECTORS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def load_updater():
    spec = importlib.util.spec_from_file_location("update_help", DOCS / "update_help.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UPDATER = load_updater()


def option_names(text):
    return set(re.findall(r"--[a-z][a-z-]*", text))


@pytest.mark.parametrize("command", UPDATER.commands())
def test_each_command_has_a_page_with_its_present_options(command):
    page = (DOCS / f"{command}.md").read_text()
    prose, _, shown = page.partition(UPDATER.START)
    assert option_names(shown) == option_names(UPDATER.help_text(command)), "run: python docs/update_help.py"
    assert option_names(prose) <= option_names(shown) | {"--engine", "--out"}
    assert len(prose.split()) > 15


def test_the_readme_names_every_detector():
    (listed,) = re.findall(r"^Detectors: (.*?)\.$", (DOCS.parent / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == sorted(DETECTORS)


def test_the_page_of_detectors_is_rendered_from_its_figures():
    pytest.importorskip("torch", reason="the guesses stand in the detectors' docstrings")
    path = DOCS.parent / "benchmarks" / "detectors.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_detectors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entries = json.loads((DOCS / "detectors.json").read_text())
    assert (DOCS / "detectors.md").read_text() == module.render(entries), "run: python benchmarks/detectors.py --render"
    assert set(entries) <= set(DETECTORS)


def test_local_links_lead_somewhere():
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), root / "README.md", root / "CONTRIBUTING.md", root / "bundle" / "FORMAT.md"]:
        for part in page.read_text().split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
