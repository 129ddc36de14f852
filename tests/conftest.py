"""Fixtures shared by all folders: a tiny bundle made without PyTorch, and the real data sets where present."""

import dataclasses
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.manifest import DetectorRecord, Figures, Manifest, PlanRecord, Tolerance, TrainingRecord
from lineproof.bundle.store import GOLDEN, MODEL, Bundle, now, write_bundle
from lineproof.core.inputs import DepthPreprocessing, VoxelPreprocessing
from lineproof.core.spec import Preprocessing, TensorSpec
from lineproof.core.threshold import calibrate
from lineproof.data.content import content_hashes
from lineproof.data.dataset import open_dataset
from lineproof.data.decoding.xyz import write_xyz
from lineproof.data.inputs.table import input_of

SHARED = Path(__file__).resolve().parents[2] / "shared"
PADIM_SETTINGS = {
    "backbone": "test_resnet",
    "weights": "random",
    "resize_px": "64",
    "crop_px": "64",
    "num_features": "12",
}
TINY_HEIGHT_PX, TINY_WIDTH_PX, TINY_MAX_BATCH = 12, 16, 8


def pytest_configure():
    """Before anything imports torch: one thread each for the tests that run side by side, and for their commands."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in its background so; commands under test would inherit it and never hear Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Slow tests first, so that none is left for one process at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under ``-n``, a file stays in one process, and so does a detector of the contract: its fits are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


def scope(nodeid):
    """What a test shares its process with: the rest of its file, or of its detector."""
    path, _, name = nodeid.partition("::")
    detector = re.search(r"\[(\w+)", name) if path.endswith("detectors/test_contract.py") else None
    return f"{path}[{detector[1]}]" if detector else path


def tiny_prediction(frames):
    """What the tiny graph computes: map = mean over channels / 255, score = maximum of the map."""
    anomaly_map = (frames.astype(np.float64).mean(axis=3) / 255.0).astype(np.float32)
    return anomaly_map.max(axis=(1, 2)), anomaly_map


def tiny_model(dtype="uint8", channels=3, name="frames"):
    """ONNX: frames (N,12,16,channels) -> score (N,), anomaly_map (N,12,16)."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    shape = ["N", TINY_HEIGHT_PX, TINY_WIDTH_PX]
    nodes = [
        helper.make_node("Cast", [name], ["grey_levels"], name="preprocess/cast", to=kind.FLOAT),
        helper.make_node("Mul", ["grey_levels", "scale"], ["unit"], name="preprocess/scale"),
        helper.make_node("ReduceMean", ["unit", "last"], ["anomaly_map"], name="head/mean", keepdims=0),
        helper.make_node("ReduceMax", ["anomaly_map", "space"], ["score"], name="post/max", keepdims=0),
    ]
    constants = [
        helper.make_tensor("scale", kind.FLOAT, [], [1.0 / 255.0]),
        helper.make_tensor("last", kind.INT64, [1], [3]),
        helper.make_tensor("space", kind.INT64, [2], [1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [*shape, channels])],
        [
            helper.make_tensor_value_info("score", kind.FLOAT, ["N"]),
            helper.make_tensor_value_info("anomaly_map", kind.FLOAT, shape),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def tiny_manifest(scores, *, name="tiny"):
    """A manifest that fits the tiny graph; the threshold lies between the fourth and fifth golden score."""
    height, width = TINY_HEIGHT_PX, TINY_WIDTH_PX
    return Manifest(
        name=name,
        created=now(),
        detector=DetectorRecord("tiny", {}),
        precision="fp32",
        inputs=(TensorSpec("frames", "uint8", ("N", height, width, 3)),),
        outputs=(
            TensorSpec("score", "float32", ("N",)),
            TensorSpec("anomaly_map", "float32", ("N", height, width)),
        ),
        preprocessing=Preprocessing.of((height, width, 3), (height, width), (height, width)),
        max_batch=TINY_MAX_BATCH,
        threshold=calibrate(sorted(scores.tolist())[:4], max_false_reject=0.0, engine="torch", source="test"),
        engine_thresholds={},
        tolerances={
            "fp32": Tolerance(score_spread=1e-2, score_margin=1e-4, anomaly_map=1e-3),
            "fp16": Tolerance(score_spread=1e-1, score_margin=1e-2, anomaly_map=2e-2),
        },
        score_spread=float(np.std(np.sort(scores)[:4], ddof=1)),
        map_range=1.0,
        training=TrainingRecord(dataset="test", category="", fingerprint="0" * 64, num_images=4, num_holdout=4, seed=0),
        figures=Figures(
            backbone="",
            backbone_parameters=0,
            extra_parameters=0,
            constants_bytes=0,
            flops={"preprocess": 192, "backbone": 0, "head": 576, "post": 192},
            nodes_per_dtype={"float32": 4},
        ),
        tools={},
        files={},
    )


def write_tiny_bundle(path) -> Bundle:
    """Write the tiny bundle: four dark (good) and four bright (defective) golden frames."""
    rng = np.random.default_rng(0)
    shape = (8, TINY_HEIGHT_PX, TINY_WIDTH_PX, 3)
    frames = rng.integers(0, 60, shape).astype(np.uint8)
    frames[4:, 3:6, 4:9] += np.arange(100, 180, 20, dtype=np.uint8)[:, None, None, None]
    score, anomaly_map = tiny_prediction(frames)
    names = np.array([f"{'good' if i < 4 else 'bad'}/{i:03d}.png" for i in range(8)])
    model = tiny_model()

    def fill(folder):
        (folder / MODEL).write_bytes(model.SerializeToString())
        np.savez_compressed(folder / GOLDEN, frames=frames, names=names, score=score, anomaly_map=anomaly_map)

    return write_bundle(Path(path), tiny_manifest(score), fill)


@pytest.fixture
def tiny_bundle(tmp_path):
    """A bundle whose graph is a mean and a maximum: every engine runs it in no time."""
    return write_tiny_bundle(tmp_path / "tiny.bundle")


def write_scan(folder, name, points, rgb):
    """Write a scan as MVTec 3D-AD keeps it: float32 (H, W, 3) in metres, and uint8 (H, W, 3)."""
    for kind in ("rgb", "xyz"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(folder / "rgb" / f"{name}.png")
    write_xyz(folder / "xyz" / f"{name}.tiff", points)


@pytest.fixture
def tiny_scans(tmp_path):
    """A category of scans of 16x12 pixels, some without a measurement; two faulty ones, brighter, with masks."""
    rng, root = np.random.default_rng(2), tmp_path / "bolt"
    rows, columns = np.mgrid[:TINY_HEIGHT_PX, :TINY_WIDTH_PX]
    for place, num in (("train/good", 4), ("validation/good", 2), ("test/good", 2), ("test/hole", 2)):
        for number in range(num):
            z = 0.4 + 0.05 * rng.random(rows.shape)
            points = np.stack([(columns - 8) / 50 * z, (rows - 6) / 50 * z, z], axis=-1).astype(np.float32)
            points[rng.random(rows.shape) < 0.1] = 0.0
            mask = np.zeros(rows.shape, np.uint8)
            mask[3:6, 4:9] = 255 * ("hole" in place)
            rgb = rng.integers(0, 60, points.shape).astype(np.uint8) + mask[..., None] // 2
            write_scan(root / place, f"{number:03d}", points, rgb)
            if "test" in place:
                (root / place / "gt").mkdir(exist_ok=True)
                Image.fromarray(mask).save(root / place / "gt" / f"{number:03d}.png")
    return root


@pytest.fixture
def scan_bundle(tiny_scans, tmp_path):
    """A function from a kind of input to a bundle of the tiny scans, whose map is the mean of what the graph takes."""

    def build(kind="depth", *, has_rgb=True):
        size = {"frame_height_px": TINY_HEIGHT_PX, "frame_width_px": TINY_WIDTH_PX, "has_rgb": has_rgb}
        if kind == "depth":
            resize = {"resize_height_px": TINY_HEIGHT_PX, "resize_width_px": TINY_WIDTH_PX}
            spec = DepthPreprocessing(**size, **resize, quantity="z", near_m=0.4, far_m=0.45)
        else:
            box = {"box_low_m": (-0.08, -0.06, 0.4), "box_high_m": (0.08, 0.06, 0.45)}
            spec = VoxelPreprocessing(**size, **box, num_cells=8)
        reader, dataset = input_of(spec), open_dataset(tiny_scans)
        paths = [sample.path for sample in (*dataset.validation, *dataset.test)]
        frames = reader.prepare(np.stack([reader.read(path) for path in paths]))
        score, anomaly_map = tiny_prediction(frames)
        training = TrainingRecord(
            dataset=dataset.name,
            category=dataset.category,
            fingerprint=dataset.fingerprint(spec.reads),
            num_images=4,
            num_holdout=2,
            seed=0,
            fitted=content_hashes([sample.path for sample in dataset.train], spec.reads),
            held_out=content_hashes([sample.path for sample in dataset.validation], spec.reads),
        )
        manifest = dataclasses.replace(
            tiny_manifest(score), name=kind, inputs=(spec.frames,), preprocessing=spec, training=training
        )
        model = tiny_model("float32", frames.shape[3], spec.frames.name)

        def fill(folder):
            (folder / MODEL).write_bytes(model.SerializeToString())
            names = np.array([path.name for path in paths])
            np.savez_compressed(folder / GOLDEN, frames=frames, names=names, score=score, anomaly_map=anomaly_map)

        return write_bundle(tmp_path / f"{kind}{'-rgb' * has_rgb}.bundle", manifest, fill)

    return build


@pytest.fixture
def shared_data():
    """Folder of real data sets, or a skip."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: real data sets lie outside the project")
    return folder


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    from lineproof.data.sample.write import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, num_train=10, num_test_good=2, num_test_defect=6, size_px=96)
    return folder


@pytest.fixture(scope="session")
def trained(sample_folder, tmp_path_factory):
    """A finished PaDiM run, with its test scores."""
    pytest.importorskip("timm")
    from lineproof.detectors.training.from_folder import train_detector

    run = tmp_path_factory.mktemp("trained") / "run"
    return train_detector("padim", sample_folder, category="flange", settings=PADIM_SETTINGS, out=run)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder that is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    """Two dark (good) and one bright (defective) image of the tiny bundle's 16x12 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        frame = rng.integers(0, 40, (12, 16, 3)).astype(np.uint8)
        frame[4:6, 5:8] += 180 * (index == 2)
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def make_plan():
    """A function to a record of a TensorRT plan; words change its fields."""

    def make(**changes):
        record = PlanRecord(
            file="plans/a.plan",
            sha256="0" * 64,
            num_bytes=4,
            engine="trt",
            engine_version="11.4",
            target="sm_89",
            precision="fp32",
            model_sha256="0" * 64,
            max_batch=8,
        )
        return dataclasses.replace(record, **changes)

    return make
