"""PyTorch modules become bundles whose golden answers are the module's own."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from lineproof.core.errors import BadInputError, ExportError, UsageError  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.importers import from_module  # noqa: E402
from lineproof.importers.onnx_file.options import ImportOptions  # noqa: E402


class Tiny(nn.Module):
    """A convolution, its absolute value as the map, the highest value as the score."""

    def __init__(self, returns=lambda score, maps: (score, maps)):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 1, 2, stride=2))
        self.returns = returns

    def forward(self, images):
        maps = self.net(images).abs()
        return self.returns(maps.amax(dim=(1, 2, 3)), maps)


def reference(module, frames, values):
    """Score and map by PyTorch alone, in float64: resize, crop, normalise, the module, enlarge."""
    images = torch.from_numpy(frames.astype(np.float64)).permute(0, 3, 1, 2) / 255
    images = nn.functional.interpolate(images, values["resize_px"], mode="bilinear", antialias=True)[..., 1:9, 2:14]
    mean, std = (torch.tensor(values[key], dtype=torch.float64)[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        maps = module.double().net((images - mean) / std).abs()
        module.float()
        return maps.amax(dim=(1, 2, 3)).numpy(), nn.functional.interpolate(maps, (8, 12), mode="bilinear")[:, 0].numpy()


@pytest.fixture
def bring(specification, images_folder, tmp_path):
    """A function from a module to its import; other words change the specification."""

    def run(module, *, options=None, **changes):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(specification(**changes)))
        out = tmp_path / "mine.bundle"
        return from_module(module, preprocessing=path, data=images_folder, out=out, options=options)

    return run


def test_the_golden_answers_are_the_modules(bring, specification):
    module = Tiny().eval()
    bundle = bring(module).bundle
    golden = bundle.golden()
    score, anomaly_map = reference(module, golden.frames, specification())
    np.testing.assert_allclose(golden.reference.score, score, rtol=1e-5)
    np.testing.assert_allclose(golden.reference.anomaly_map, anomaly_map, rtol=1e-5, atol=1e-6)
    report = verify(bundle, engine="ort-cpu", batch=3)
    assert report.passed, report.failures
    manifest = bundle.manifest
    assert (manifest.detector.name, manifest.name, manifest.max_batch) == ("module", "nut-tiny", 8)
    assert manifest.threshold.engine == "torch"
    assert manifest.imported.library == "PyTorch"
    assert manifest.figures.extra_parameters == 3 * 2 * 2 + 1
    assert manifest.figures.flops["model"] == 2 * 12 * 4 * 6


@pytest.mark.slow
def test_a_module_that_gives_a_map_only_at_batch_1(bring):
    module = Tiny(lambda _, maps: maps[:, 0].reshape(1, 4, 6)).eval()
    bundle = bring(module, options=ImportOptions(max_batch=1), score=None, score_from_map=3).bundle
    assert bundle.manifest.max_batch == 1
    report = verify(bundle, engine="ort-cpu")
    assert report.passed, report.failures
    with pytest.raises(ExportError, match=r"Tiny does not trace to ONNX: .*with max_batch 1 it need not do the latter"):
        bring(module, score=None, score_from_map=3)


def test_modules_that_cannot_be_imported(bring):
    with pytest.raises(UsageError, match=r"Tiny is in training mode; expected evaluation mode: call its eval\(\)"):
        bring(Tiny())
    with pytest.raises(BadInputError, match=r"returns 1 value \(Tensor\); expected 2 tensors: pred_score, anomaly_map"):
        bring(Tiny(lambda score, _: score).eval())
    with pytest.raises(BadInputError, match=r"returns 2 values \(Tensor, NoneType\); expected 2 tensors"):
        bring(Tiny(lambda score, _: (score, None)).eval())
    with pytest.raises(UsageError, match=r"Tiny lies on meta; expected the CPU: call its cpu\(\)"):
        bring(Tiny().eval().to("meta"))


def test_importing_the_package_does_not_import_pytorch():
    code = "import sys, lineproof.importers; assert 'torch' not in sys.modules; print(lineproof.importers.__all__)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "['from_module']\n"
