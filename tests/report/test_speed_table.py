"""The paper's Table 3 beside what was measured."""

import dataclasses
import json

import pytest

from lineproof.commands._find import all_bundles, open_bundles, open_named
from lineproof.core.errors import BadInputError, BudgetError, UsageError
from lineproof.profiles.measure import ProfileRequest
from lineproof.report.published import published
from lineproof.report.speed_table import check_table, profile_bundles
from lineproof.runtime.engine import availability, cpu_engines, engine_type

REQUEST = ProfileRequest(num_runs=3, num_warmup=1, num_cold_starts=0)


@pytest.fixture
def fastflow(tiny_bundle):
    manifest = tiny_bundle.manifest
    figures = dataclasses.replace(manifest.figures, backbone="resnet18", extra_parameters=1_230_000)
    detector = dataclasses.replace(manifest.detector, name="fastflow")
    return tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, figures=figures, detector=detector))


def _engines():
    preferences = {name: engine_type(name).preference for name in cpu_engines()}
    ranked = sorted(filter(preferences.get, preferences), key=lambda name: -preferences[name])
    names = [name for name in ranked if availability(name).is_available]
    if not names:
        pytest.skip("no CPU engine is installed")
    return names


def test_every_bundle_here_on_every_engine_here(fastflow, monkeypatch):
    engines = _engines()
    monkeypatch.chdir(fastflow.path.parent)
    speed = profile_bundles(open_bundles(None, takes_all=True), REQUEST, table="3")
    assert [report.engine for report in speed.reports] == engines
    names = [row[0] for row in speed.table.rows]
    place = names.index("FastFlow, published")
    ours = f"fastflow resnet18 12x16 px fp32 on {engines[0]} (tiny.bundle), measured"
    assert names[place + 1] == ours
    published_row, row = speed.table.rows[place], speed.table.rows[place + 1]
    assert published_row[1:4] == ("21.80", "34.00", "41.30")
    assert row[3] == "1.23"
    assert float(row[1]) > 0
    methods = {"spade", "patchcore", "differnet", "cflow", "csflow", "fastflow"}
    assert set(published()["tables"]["3"]["paper"]) == methods
    assert "medians of batch 1" in speed.summary_lines()[-1]
    json.dumps(speed.to_dict(), allow_nan=False)


def test_the_bundle_and_the_engine_named(fastflow):
    engine = _engines()[-1]
    request = dataclasses.replace(REQUEST, engines=(engine,))
    speed = profile_bundles([fastflow], request, table="3")
    assert [report.engine for report in speed.reports] == [engine]
    alone = profile_bundles([fastflow], request)
    assert [report.engine for report in alone.comparison.reports] == [engine]


def test_other_tables_and_an_empty_folder(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"profile fills the paper's Table 3 .*Accuracy: lineproof evaluate --table 1"):
        check_table("1", REQUEST)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"no \*\.bundle"):
        all_bundles()


def test_every_option_is_honoured_or_refused(fastflow):
    engine = _engines()[-1]

    def table(precision=None, **request):
        request = dataclasses.replace(REQUEST, engines=(engine,), **request)
        return profile_bundles([open_named(fastflow.path, precision=precision)], request, table="3")

    with pytest.raises(UsageError, match=r"batches \(--batch\) is 1:4\. Leave out --batch or --table"):
        table(batches=(1, 4))
    with pytest.raises(UsageError, match="is fp32, not fp16"):
        table(precision="fp16")
    missed = table(deadline_ms=1e-6, with_samples=True)
    with pytest.raises(BudgetError, match=f"{engine} at batch 1: 3 of 3 calls"):
        missed.check()
    (profile,) = missed.to_dict()["profiles"]
    (kept,) = table(deadline_ms=1e6).to_dict()["profiles"]
    assert set(profile["batches"][0]) - set(kept["batches"][0]) == {"samples"}
    table(deadline_ms=1e6).check()
