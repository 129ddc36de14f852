"""One small fit per detector of the table, shared by all contract tests."""

import dataclasses
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.registry import resolve  # noqa: E402
from lineproof.core.size import size_text  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.data.sample.write import write_sample  # noqa: E402
from lineproof.data.sample.write_3d import write_sample_3d  # noqa: E402
from lineproof.detectors.base import DETECTORS, make_config  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402

#: What makes a fit small, applied where a detector has such a parameter.
SMALL = {
    "epochs": 1, "steps_per_epoch": 2, "coreset_size": 60, "steps": 2, "num_retrieved": 5, "copies": 1, "num_cells": 16,
    "generator_steps": 2, "encoder_steps": 2, "local_epochs": 1, "local_patches": 8,
}  # fmt: skip
SQUARE = (64, 64)
#: A part three times as long as wide, lying and standing.
RECTANGLES = ((64, 192), (192, 64))
#: What a detector needs besides, so that its maps fit a rectangle that small.
FOR_RECTANGLES = {"csflow": {"stride": 16}}
#: How many times as large a rectangle must be for a detector whose coarsest map, through which everything goes, would
#: have two rows there: the lower one, centred on pixel 32 of 64, lies as near to one half of the image as to the other.
ENLARGED = {"nsa": 2}


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, num_train=10, num_test_good=2, num_test_defect=6, size_px=96)
    return folder


@pytest.fixture(scope="session")
def dataset(sample_folder):
    return open_dataset(sample_folder, category="flange")


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """A 3D sample as large: what detectors of scans are fitted to."""
    folder = tmp_path_factory.mktemp("scans")
    write_sample_3d(folder, num_train=10, num_validation=0, num_test_good=2, num_test_defect=6, size_px=96)
    return open_dataset(folder, category="bracket")


def small_config(name, size=SQUARE):
    """The quick settings of a detector, smaller still, for images of this height and width."""
    detector = resolve(DETECTORS, name, kind="detector")
    fields = {field.name for field in dataclasses.fields(detector.config_class)}
    settings = detector.quick_settings() | {key: value for key, value in SMALL.items() if key in fields}
    beside = FOR_RECTANGLES.get(name, {}) if size[0] != size[1] else {}
    return make_config(name, settings | beside | {"resize_px": size, "crop_px": size})


@pytest.fixture(scope="session")
def settings_of():
    """The function ``small_config``."""
    return small_config


@pytest.fixture(scope="session")
def data_of(dataset, scans):
    """A function from a detector's name and an image size to what it is fitted to, and with which options."""

    def get(name, size=SQUARE, **options):
        kind = resolve(DETECTORS, name, kind="detector").input_kind
        # The map of a voxel detector covers the frame itself.
        beside = {"fit": "stretch", "frame": size} if kind == "voxel" else {}
        return dataset if kind == "image" else scans, TrainOptions(**beside, **options)

    return get


@pytest.fixture(scope="session")
def fit(data_of, tmp_path_factory):
    """A function from a detector's name and an image size to its small fit; each is made once."""
    made = {}

    def get(name, size=SQUARE):
        if (name, size) not in made:
            given, options = data_of(name, size)
            run = tmp_path_factory.mktemp(name) / "run"
            record = train(name, small_config(name, size), dataset=given, run=run, options=options)
            detector = load_detector(record.detector, run / CHECKPOINT)
            images = image_set(detector, [sample.path for sample in given.test], scans=record.scans)
            made[name, size] = SimpleNamespace(
                name=name,
                size=size,
                run=run,
                record=record,
                detector=detector,
                images=images,
                dataset=given,
                options=options,
            )
        return made[name, size]

    return get


def _enlarged(name, size):
    """A size as this detector is tested with it; squares stay as they are."""
    factor = ENLARGED.get(name, 1) if size[0] != size[1] else 1
    return size[0] * factor, size[1] * factor


def _fits(sizes):
    """Parameters: every detector at every size that it takes; a fast run has squares alone."""
    return [
        pytest.param((name, size), id=f"{name}-{size_text(size)}", marks=[] if size == SQUARE else pytest.mark.slow)
        for name in sorted(DETECTORS)
        for size in (_enlarged(name, size) for size in sizes)
        if size[0] == size[1] or resolve(DETECTORS, name, kind="detector").takes_rectangles
    ]


@pytest.fixture(params=_fits((SQUARE, RECTANGLES[0])))
def fitted(request, fit):
    """A small fit of every detector, on squares and on lying rectangles."""
    return fit(*request.param)


@pytest.fixture(params=_fits((SQUARE, *RECTANGLES)))
def fitted_any(request, fit):
    """A small fit of every detector, on squares and on rectangles lying and standing."""
    return fit(*request.param)


@pytest.fixture(params=_fits((SQUARE,)))
def fitted_square(request, fit):
    """A small fit of every detector, on squares."""
    return fit(*request.param)


@pytest.fixture(params=_fits(RECTANGLES))
def fitted_rectangle(request, fit):
    """A small fit of every detector that takes rectangles, lying and standing."""
    return fit(*request.param)
