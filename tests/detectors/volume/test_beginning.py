"""A run of scans goes on with the same clouds, colours and calibration, and with no others."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch")

from lineproof.bundle.runs.folder import RECORD, read_record, read_started
from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.content import content_hashes
from lineproof.data.dataset import open_dataset
from lineproof.data.decoding.xyz import read_xyz, write_xyz
from lineproof.data.files import CALIBRATION, scan_files
from lineproof.data.held_out import held_out_images
from lineproof.detectors.base import make_config
from lineproof.detectors.training.operating import recorded_dataset
from lineproof.detectors.training.options import TrainOptions
from lineproof.detectors.training.train import train

SETTINGS = {"copies": 0, "rgb": "false"}


@pytest.fixture
def begun(brackets, tmp_path):
    """A finished run on a copy of the scans."""
    root, run = tmp_path / "bracket", tmp_path / "run"
    shutil.copytree(brackets.root, root)
    return root, run, again(root, run)


def again(root, run, **settings):
    return train("depth_vm", make_config("depth_vm", SETTINGS | settings), dataset=open_dataset(root), run=run)


def move(cloud):
    points = read_xyz(cloud)
    places = np.argwhere(points.any(axis=2))
    points[tuple(places[len(places) // 2])] += np.float32(1e-4)
    write_xyz(cloud, points)


def test_the_record_knows_scans_by_what_was_read(begun):
    root, run, record = begun
    dataset = open_dataset(root)
    assert record.training.fitted == content_hashes([sample.path for sample in dataset.train], "cloud")
    assert record.training.fingerprint == dataset.fingerprint("cloud") != dataset.fingerprint()
    assert read_record(run).reads == "cloud"
    assert read_started(run).camera == record.scans.camera
    assert held_out_images(record, run)


def test_another_cloud_beside_the_same_image_is_noticed(begun):
    root, run, record = begun
    (run / RECORD).unlink()
    move(scan_files(open_dataset(root).train[3].path)[0])
    with pytest.raises(BadInputError, match="begun with other images: 1 of 16 are not among the 16 it was begun with"):
        again(root, run)
    held_out = root / record.holdout[0]
    move(scan_files(held_out)[0])
    with pytest.raises(BadInputError, match="1 of 4 held-out images have other content"):
        held_out_images(record, run)
    scan_files(held_out)[0].unlink()
    with pytest.raises(BadInputError, match="1 of 4 held-out images are not where they were"):
        held_out_images(record, run)


def test_another_calibration_is_noticed(begun):
    root, run, record = begun
    (run / RECORD).unlink()
    original = (root / CALIBRATION).read_text()
    values = json.loads(original)
    (root / CALIBRATION).write_text(json.dumps(values | {"focus": values["focus"] * 1.01}))
    with pytest.raises(BadInputError, match="begun with another camera"):
        again(root, run)
    (root / CALIBRATION).write_text(original)
    assert again(root, run).training == record.training


def test_colours_that_were_not_read_may_change(begun):
    root, run, record = begun
    train_images = [sample.path for sample in open_dataset(root).train]
    shutil.copy(train_images[0], train_images[1])
    assert again(root, run).training == record.training
    with pytest.raises(BadInputError, match="begun with other parameters"):
        again(root, run, rgb="true")


def test_the_data_of_a_run_are_checked_for_what_it_read(begun):
    root, run, _ = begun
    dataset = open_dataset(root)
    shutil.copy(dataset.train[0].path, dataset.test[0].path)
    assert "byte-identical" not in " ".join(recorded_dataset(run).problems)
    shutil.copy(scan_files(dataset.train[0].path)[0], scan_files(dataset.test[0].path)[0])
    assert "is byte-identical to a training scan" in " ".join(recorded_dataset(run).problems)


def test_bits_of_images_are_refused(brackets, tmp_path):
    config, options = make_config("depth_vm", SETTINGS), TrainOptions(bit_depth=12)
    with pytest.raises(UsageError, match=r"^bit_depth \(--bit-depth\) is 12; .* reads scans, .* Leave it out\.$"):
        train("depth_vm", config, dataset=brackets, run=tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()
