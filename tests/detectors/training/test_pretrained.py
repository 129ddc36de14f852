"""Which weights a run began with: in its record, its output and its bundle; and runs of former releases."""

import hashlib
import json
import shutil

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from lineproof.bundle.description import BundleDescription  # noqa: E402
from lineproof.bundle.manifest import WeightsRecord  # noqa: E402
from lineproof.bundle.runs.folder import RECORD, STARTED, read_record  # noqa: E402
from lineproof.bundle.store import MODEL, open_bundle  # noqa: E402
from lineproof.core.errors import BadInputError  # noqa: E402
from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.detectors.training import train as training  # noqa: E402
from lineproof.detectors.training.from_folder import train_detector  # noqa: E402

SMALL = "test_resnet"
SETTINGS = {"resize_px": 64, "crop_px": 64, "num_features": 12}


def fit(data, run, **settings):
    return train_detector("padim", data, category="flange", settings=SETTINGS | settings, out=run)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model(SMALL, pretrained=False).state_dict(), path)
    return path


def test_a_teacher_that_serves_the_fit_alone_is_named_too(weights):
    detector = build_detector("glance", make_config("glance", {"backbone": SMALL, "weights": str(weights)}))
    assert detector.pretrained().sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def exported(run, out):
    pytest.importorskip("onnx_ir")
    from lineproof.export.bundle import export_bundle

    return export_bundle(run, out)


def test_run_output_bundle_and_inspect_name_the_weights(sample_folder, weights, tmp_path):
    result = fit(sample_folder, tmp_path / "run", backbone=SMALL, weights=str(weights))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    expected = WeightsRecord(network=SMALL, tag="", source="file", file="w.safetensors", sha256=digest)
    assert read_record(tmp_path / "run").detector.pretrained == expected
    assert result.to_dict()["detector"]["pretrained"]["sha256"] == digest
    assert expected.sentence() in result.summary_lines()
    bundle = exported(tmp_path / "run", tmp_path / "a.bundle")
    opened = open_bundle(bundle.path)
    assert opened.manifest.detector.pretrained == expected
    assert opened.manifest.is_as_written
    description = BundleDescription(opened)
    assert expected.sentence() in description.summary_lines()
    assert description.to_dict()["detector"]["pretrained"]["file"] == "w.safetensors"


def test_a_run_of_a_former_release_exports_to_the_same_bytes(sample_folder, tmp_path):
    """It recorded no weights, and its manifest has no place for them: neither has its new one."""
    tagged, former = tmp_path / "tagged", tmp_path / "former"
    fit(sample_folder, tagged, backbone=f"{SMALL}.r160_in1k", weights="random")
    shutil.copytree(tagged, former)
    record = json.loads((former / RECORD).read_text())
    del record["detector"]["pretrained"]
    record["detector"]["parameters"]["backbone"] = SMALL
    (former / RECORD).write_text(json.dumps(record))
    bundles = [exported(run, tmp_path / f"{run.name}.bundle") for run in (tagged, former)]
    for name in (MODEL, "golden.npz", "reference.safetensors"):
        first, second = ((bundle.path / name).read_bytes() for bundle in bundles)
        assert first == second, name
    manifest = json.loads((bundles[1].path / "manifest.json").read_text())
    assert sorted(manifest["detector"]) == ["name", "parameters"]


class BegunError(Exception):
    """Carries the configuration that a training would begin with."""


@pytest.mark.parametrize(
    ("detector", "begun", "named", "expected"),
    [
        ("padim", "wide_resnet50_2", None, "wide_resnet50_2"),
        ("fastflow", "wide_resnet50_2", None, "wide_resnet50_2"),
        ("dfr", "vgg19", None, "vgg19"),
        ("padim", "wide_resnet50_2", "wide_resnet50_2.tv_in1k", "wide_resnet50_2.tv_in1k"),
        ("padim", "resnet18", None, "wide_resnet50_2.tv_in1k"),
        ("patchcore", "wide_resnet50_2.tv_in1k", None, "wide_resnet50_2.tv_in1k"),
    ],
)
def test_a_run_begun_with_the_default_of_a_former_release_goes_on_with_it(
    sample_folder, tmp_path, monkeypatch, detector, begun, named, expected
):
    """The same command names no backbone, and what it leaves out has another default now."""

    def begin(_name, config, **_given):
        raise BegunError(config.backbone)

    monkeypatch.setattr(training, "train", begin)
    (tmp_path / STARTED).write_text(json.dumps({"detector": detector, "parameters": {"backbone": begun}}))
    told = []
    with pytest.raises(BegunError, match=f"^{expected}$"):
        train_detector(
            detector, sample_folder, category="flange", settings={"backbone": named}, out=tmp_path,
            progress=lambda stage, *_: told.append(stage),
        )  # fmt: skip
    words = f"keeps the backbone {begun} that {tmp_path} was begun with by a former release"
    assert (words in told) == (expected == begun != named and "." not in begun)


def test_another_backbone_is_still_another_run(sample_folder, tmp_path):
    run = tmp_path / "run"
    fit(sample_folder, run, backbone=SMALL, weights="random")
    for settings in ({"weights": "random"}, {"backbone": f"{SMALL}.r160_in1k", "weights": "random"}):
        with pytest.raises(BadInputError, match="begun with other parameters"):
            fit(sample_folder, run, **settings)
