"""A newcomer's walk with a transformer's ONNX file: from an empty folder to verdicts, by the commands alone."""

import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from lineproof import cli  # noqa: E402
from lineproof.bundle.store import open_bundle  # noqa: E402
from lineproof.eval.parity.verify import verify  # noqa: E402
from lineproof.runtime.engine import availability  # noqa: E402

pytestmark = pytest.mark.slow

SIZE_PX, PATCH_PX = 64, 16
PREPROCESSING = {
    "frame_height_px": 96, "frame_width_px": 96, "frame_channels": 3,
    "resize_px": [SIZE_PX, SIZE_PX], "crop_px": None, "value_range": "0..1",
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "channel_order": "rgb", "layout": "NCHW",
    "input": "pixel_values", "score": "score", "anomaly_map": "map",
}  # fmt: skip


class FeatureDistance(torch.nn.Module):
    """Cosine distance of a vision transformer's patches to their nearest ones of good images; weights are random."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=SIZE_PX, depth=2)
        self.register_buffer("bank", torch.zeros(1, self.vit.num_features))

    def features(self, images):
        patches = self.vit.forward_features(images)[:, 1:]
        return patches / patches.norm(dim=2, keepdim=True)

    def forward(self, images):
        distance = 1 - (self.features(images) @ self.bank.T).amax(dim=2)
        side = SIZE_PX // PATCH_PX
        return distance.amax(dim=1), distance.reshape(-1, 1, side, side)


def read(paths):
    images = [Image.open(path).convert("RGB").resize((SIZE_PX, SIZE_PX)) for path in paths]
    return (torch.from_numpy(np.stack(images) / np.float32(255)).permute(0, 3, 1, 2) - 0.5) / 0.5


@pytest.fixture(scope="module")
def walked(tmp_path_factory, sample_folder):
    """The folder of the walk: the sample, the transformer's file and what it takes."""
    folder = tmp_path_factory.mktemp("walk")
    shutil.copytree(sample_folder, folder / "sample")
    model = FeatureDistance().eval()
    images = read(sorted((sample_folder / "flange" / "train" / "good").glob("*.png")))
    with torch.inference_mode():
        model.bank = model.features(images).flatten(0, 1).clone()
    torch.onnx.export(
        model, (images[:2],), folder / "vit.onnx", dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["pixel_values"], output_names=["score", "map"], external_data=False, verbose=False,
    )  # fmt: skip
    (folder / "vit.json").write_text(json.dumps(PREPROCESSING))
    return folder


@pytest.fixture
def lineproof(walked, monkeypatch, capsys):
    """A function that runs one command in the folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(walked)

    def command(text):
        monkeypatch.setattr(sys, "argv", ["lineproof", *text.split(), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        answer = capsys.readouterr()
        return ended.value.code or 0, answer.out, answer.err

    return command


WALK = {
    "import onnx vit.onnx --preprocessing vit.json --data sample --category flange": "Parity passed: flange-vit on ort",
    "verify --engine ort-cpu --data sample --batch 4": "and original on 8 images",
    "inspect": "Imported from ONNX: vit of vit.onnx",
    "evaluate --data sample --engine ort-cpu": "image AUROC",
    "profile --engine ort-cpu --runs 3 --warmup 1": "GFLOPs per frame: model",
    "run flange-vit.bundle sample/flange/test/crack --engine ort-cpu": '"bundle": "flange-vit"',
    "badcases flange-vit.bundle --data sample --engine ort-cpu --out bad": "Hot spots",
    "compare flange-vit.bundle flange-vit.bundle --data sample --engine ort-cpu": "Verdicts: 0 of 8 differ",
    "calibrate --data held --engine ort-cpu --other-data": "Threshold of ort-cpu:",
    "set-threshold flange-vit.bundle 0.5 --who me --reason walk": "one of its own: 0.5 (before",
}


def test_every_command_takes_the_imported_bundle(lineproof, walked):
    # Good parts that lie in no data set, so that they may set a threshold.
    held = walked / "held"
    held.mkdir()
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted((walked / "sample" / "flange" / "train" / "good").glob("*.png"))[:3]):
        noisy = np.asarray(Image.open(path)).astype(int) + rng.integers(0, 3, (96, 96, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(held / f"{number}.png")
    for command, words in WALK.items():
        status, out, err = lineproof(command)
        assert status == 0, f"{command}: {out}{err}"
        assert words in out, f"{command}: {out}{err}"
    status, _, err = lineproof("import onnx vit.onnx --preprocessing vit.json --data sample --category flange")
    assert (status, "holds calibration, history, profiles, proofs" in err) == (1, True)


@pytest.mark.parametrize("engine", ["ort-cpu", "openvino"])
def test_the_transformer_is_proved(walked, lineproof, engine):
    if not availability(engine).is_available:
        pytest.skip(f"{engine} cannot run here. Found: {availability(engine).found}.")
    bundle = walked / f"{engine}.bundle"
    command = f"import onnx vit.onnx --preprocessing vit.json --data sample/flange --out {bundle} --no-verify"
    status, out, err = lineproof(command)
    assert status == 0, err
    if find_spec("tensorrt_rtx"):
        assert "parsed and built it for sm_86" in out
    report = verify(open_bundle(bundle), engine=engine, batch=4)
    assert report.passed, report.failures
    assert report.score_max_abs_error < 1e-5
