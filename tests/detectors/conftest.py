"""One small fit per detector of the table, shared by all contract tests."""

import dataclasses
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from lineproof.core.registry import resolve  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.data.sample import write_sample  # noqa: E402
from lineproof.detectors.base import DETECTORS, make_config  # noqa: E402
from lineproof.detectors.checkpoint import CHECKPOINT, load_detector  # noqa: E402
from lineproof.detectors.train import image_set, train  # noqa: E402

#: What makes a fit small, applied where a detector has such a parameter.
SMALL = {"resize_px": 64, "crop_px": 64, "epochs": 1, "coreset_size": 60, "steps": 2, "num_retrieved": 5}


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, num_train=10, num_test_good=2, num_test_defect=6, size_px=96)
    return folder


@pytest.fixture(scope="session")
def dataset(sample_folder):
    return open_dataset(sample_folder, category="flange")


def small_config(name):
    """The quick settings of a detector, smaller still."""
    detector = resolve(DETECTORS, name, kind="detector")
    fields = {field.name for field in dataclasses.fields(detector.config_class)}
    settings = detector.quick_settings() | {key: value for key, value in SMALL.items() if key in fields}
    return make_config(name, settings)


@pytest.fixture(scope="session")
def fit(dataset, tmp_path_factory):
    """A function from a detector's name to its small fit; each is made once."""
    made = {}

    def get(name):
        if name not in made:
            run = tmp_path_factory.mktemp(name) / "run"
            record = train(name, small_config(name), dataset=dataset, run=run)
            detector = load_detector(record.detector, run / CHECKPOINT)
            images = image_set(detector, [sample.path for sample in dataset.test])
            made[name] = SimpleNamespace(name=name, run=run, record=record, detector=detector, images=images)
        return made[name]

    return get


@pytest.fixture(params=sorted(DETECTORS))
def fitted(request, fit):
    return fit(request.param)
