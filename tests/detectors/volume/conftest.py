"""A small 3D sample, and fits on it."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from lineproof.bundle.runs.folder import CHECKPOINT
from lineproof.data.dataset import open_dataset
from lineproof.data.sample.write_3d import write_sample_3d
from lineproof.detectors.base import make_config
from lineproof.detectors.training.checkpoint import load_detector
from lineproof.detectors.training.train import image_set, train


@pytest.fixture(scope="session")
def brackets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_sample_3d(folder, num_train=12, num_validation=4, num_test_good=2, num_test_defect=5, size_px=64)
    return open_dataset(folder, category="bracket")


@pytest.fixture(scope="session")
def fit_of(brackets, tmp_path_factory):
    """A function from a detector and settings to a finished run, loaded again; each is made once."""
    made = {}

    def get(name, **settings):
        key = name, *sorted(settings.items())
        if key not in made:
            run = tmp_path_factory.mktemp(name) / "run"
            record = train(name, make_config(name, settings), dataset=brackets, run=run)
            detector = load_detector(record.detector, run / CHECKPOINT)

            def scans_of(samples, detector=detector, record=record):
                return image_set(detector, [sample.path for sample in samples], scans=record.scans)

            made[key] = SimpleNamespace(run=run, record=record, detector=detector, scans_of=scans_of)
        return made[key]

    return get


@pytest.fixture
def with_bump(brackets):
    """A function from a ScanSet's cloud to the same with a bump of a stated height, and where it is."""
    del brackets

    def add(cloud, *, height_m, row=16, column=46, radius=3):
        changed = cloud.copy()
        place = (slice(row - radius, row + radius), slice(column - radius, column + radius))
        patch = changed[place]
        depth = patch[..., 2:3]
        # Along each ray, so that every point stays in its pixel.
        patch[..., :3] *= (depth - height_m * (depth > 0)) / (depth + (depth == 0))
        return changed, place

    return add
