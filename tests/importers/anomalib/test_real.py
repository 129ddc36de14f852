"""Real checkpoints against anomalib's own Engine.predict, in its own environment.

``LINEPROOF_ANOMALIB_PYTHON`` is the Python of an environment with anomalib, ``LINEPROOF_ANOMALIB_CHECKPOINTS`` a folder
with NAME/model.ckpt for as many models as there are, all trained on MVTec AD's screw.
"""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from lineproof.data.dataset import check_contents, open_dataset  # noqa: E402
from lineproof.eval.parity.foreign import ForeignReference, verify_against  # noqa: E402
from lineproof.export.bundle import export_bundle  # noqa: E402
from lineproof.importers.anomalib.run import import_anomalib  # noqa: E402
from lineproof.runtime.engine import availability  # noqa: E402

PYTHON = os.environ.get("LINEPROOF_ANOMALIB_PYTHON", "")
FOLDER = os.environ.get("LINEPROOF_ANOMALIB_CHECKPOINTS", "")
SCREW = Path(__file__).resolve().parents[4] / "shared" / "data" / "mvtec_ad"
CHECKPOINTS = sorted(Path(FOLDER).glob("*/model.ckpt")) if FOLDER else []

pytestmark = [
    pytest.mark.slow,
    pytest.mark.realdata,
    pytest.mark.skipif(not (PYTHON and FOLDER), reason="LINEPROOF_ANOMALIB_PYTHON and _CHECKPOINTS are not set"),
    pytest.mark.skipif(not SCREW.is_dir(), reason=f"{SCREW} is not there"),
]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS or [None], ids=lambda path: path.parent.name if path else "none")
def test_the_engines_verdicts(checkpoint, tmp_path):
    assert checkpoint, f"{FOLDER} holds no NAME/model.ckpt"
    dataset = check_contents(open_dataset(SCREW, category="screw"), "image")
    result = import_anomalib(checkpoint, dataset=dataset, out=tmp_path / "run")
    bundle = export_bundle(result.run, tmp_path / "a.bundle")
    reference = ForeignReference(checkpoint=checkpoint, python=Path(PYTHON))
    for engine in ("ort-cpu", "openvino"):
        if not availability(engine).is_available:
            continue
        report = verify_against(bundle, engine=engine, dataset=dataset, reference=reference)
        assert report.passed, report.failures
        assert len(report.verdict_flips) == 0
        assert report.score_max_abs_error <= 1e-4
        assert report.map_max_abs_error <= 1e-3
