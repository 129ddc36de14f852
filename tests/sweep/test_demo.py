"""Steps of the demo that need no training."""

import pytest

from lineproof.eval.parity.verify import verify
from lineproof.runtime.engine import availability, cpu_engines
from lineproof.sweep import demo


def test_what_was_proved_is_known_to_the_next_step(tiny_bundle, monkeypatch):
    engines = [name for name in cpu_engines() if availability(name).is_available]
    if not engines:
        pytest.skip("no CPU engine is installed")
    # The tiny bundle has no PyTorch weights to judge images by: its golden frames are enough here.
    monkeypatch.setattr(demo, "verify", lambda bundle, *, engine, **_others: verify(bundle, engine=engine))
    bundle, reports = demo.verify_each(tiny_bundle, engines, dataset=None)
    assert [report.engine for report in reports] == engines
    assert all(report.passed for report in reports)
    assert {name: bundle.manifest.parity_of(name) for name in engines} == dict.fromkeys(engines, "passed")
