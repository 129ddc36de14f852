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


def load_benchmark(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_of_{name}", DOCS.parent / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def option_names(text):
    return set(re.findall(r"--[a-z][a-z-]*", text))


@pytest.mark.parametrize("command", UPDATER.commands())
def test_each_command_has_a_page_with_its_present_options(command):
    page = (DOCS / f"{command.replace(' ', '-')}.md").read_text()
    prose, _, shown = page.partition(UPDATER.START)
    assert option_names(shown) == option_names(UPDATER.help_text(command)), "run: python docs/update_help.py"
    assert option_names(prose) <= option_names(shown) | {"--engine", "--out"}
    assert len(prose.split()) > 15


def test_the_readme_names_every_detector():
    (listed,) = re.findall(r"^Detectors: (.*?)\.$", (DOCS.parent / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == sorted(DETECTORS)


def test_the_page_of_detectors_is_rendered_from_its_figures():
    pytest.importorskip("torch", reason="the guesses stand in the detectors' docstrings")
    module = load_benchmark("detectors")
    entries = json.loads((DOCS / "detectors.json").read_text())
    assert (DOCS / "detectors.md").read_text() == module.render(entries), "run: python benchmarks/detectors.py --render"
    assert set(entries) <= set(DETECTORS)


def test_the_page_says_which_quick_settings_keep_the_best_epoch():
    pytest.importorskip("torch")
    from lineproof.detectors.base import find_preset, make_config

    page = (DOCS / "train.md").read_text()
    (said,) = re.findall(r"^Quick settings keep the best epoch of (.*?), most of\s", page, re.MULTILINE | re.DOTALL)
    settings = {name: find_preset(name, "quick").settings for name in DETECTORS}
    best = [name for name in sorted(DETECTORS) if getattr(make_config(name, settings[name]), "keep", "") == "best"]
    assert re.findall(r"`(\w+)`", said) == best
    assert sum(bool(make_config(name, settings[name]).patience) for name in best) > len(best) / 2
    assert not [name for name in DETECTORS if name not in best and settings[name].get("patience")]


def test_the_page_of_costs_is_rendered_from_its_figures():
    module = load_benchmark("costs")
    kept = json.loads(module.DATA.read_text())
    _, _, rest = module.PAGE.read_text().partition(module.START)
    shown = rest.partition(module.END)[0]
    assert shown == f"\n\n{module.table(kept, teraflops=10.0)}\n", "run: python benchmarks/costs.py --render"
    # Of each detector that trains in epochs something is trained; PANDA's backbone is frozen again after its fit.
    assert {name for name, row in kept.items() if row["epochs"]} == {
        name for name, row in kept.items() if row["trained_m"]
    }
    assert kept["panda"]["trained_m"] == 62.71


def test_the_tables_of_from_anomalib_are_rendered_from_its_figures():
    module = load_benchmark("from_anomalib")
    page, figures = module.PAGE.read_text(), json.loads(module.FIGURES.read_text())
    assert page == module.render(page, figures), "run: python benchmarks/from_anomalib.py --render"
    for item in figures["models"].values():
        assert [entry["flips"] for entry in item["parity"].values()] == [0, 0]


def test_what_an_optimiser_moved_is_counted_whatever_becomes_of_it():
    torch = pytest.importorskip("torch")
    trained = load_benchmark("costs")._Trained()
    kept, dropped, still = (torch.nn.Linear(3, num) for num in (2, 5, 7))

    def train(*modules):
        parameters = [item for module in modules for item in module.parameters()]
        optimiser = torch.optim.SGD(parameters, 0.1)
        sum(item.sum() for item in parameters if item.requires_grad).backward()
        optimiser.step()

    with trained.hook():
        train(kept, dropped)
        train(kept)
        train(kept.requires_grad_(True), still.requires_grad_(False))
    kept.requires_grad_(False)
    assert trained.count() == 4 * 2 + 4 * 5
    train(still.requires_grad_(True))
    assert trained.count() == 4 * 2 + 4 * 5


def test_local_links_lead_somewhere():
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), root / "README.md", root / "CONTRIBUTING.md", root / "bundle" / "FORMAT.md"]:
        for part in page.read_text().split("](")[1:]:
            target = part.split(")")[0].split("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
