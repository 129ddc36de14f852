"""A detector that learns tiles: what its images are, which are held out, and what a file's score is."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT, RECORD, read_record, read_started  # noqa: E402
from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.core.spec import FrameRule  # noqa: E402
from lineproof.core.tiles import Tiles  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.training import images as images_module  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector, score_images  # noqa: E402
from lineproof.detectors.training.images import ImageSet  # noqa: E402
from lineproof.detectors.training.operating import score_test_split, stored_scores  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, split_good, train  # noqa: E402

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": 32, "crop_px": 32, "num_features": 6}
TILES = Tiles(height_px=48, width_px=40, overlap_px=8)
#: The first rows and columns of such tiles in the sample's 96x96 pixels.
TOPS, LEFTS = (0, 40, 48), (0, 32, 56)
RULE = FrameRule.of((96, 96))
NORMALISATION = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "run"
    train("padim", make_config("padim", SETTINGS), dataset=dataset, run=folder, options=TrainOptions(tiles=TILES))
    return folder


def tile_set(paths, **changes):
    return ImageSet(paths, (48, 40), crop_px=(48, 40), rule=RULE, tiles=TILES, **{**NORMALISATION, **changes})


def cut(path):
    """The tiles of a file by NumPy, in [0, 1]."""
    frame = np.asarray(Image.open(path).convert("RGB")) / 255.0
    return [frame[top : top + 48, left : left + 40].transpose(2, 0, 1) for top in TOPS for left in LEFTS]


@pytest.mark.parametrize("keeps", [True, False])
def test_every_tile_is_an_image_of_the_set(dataset, monkeypatch, keeps):
    if not keeps:
        monkeypatch.setattr(images_module, "_MEMORY_LIMIT_BYTES", 0)
    paths = [sample.path for sample in dataset.train[:3]]
    images = tile_set(paths)
    assert (len(images), images.num_tiles) == (27, 9)
    expected = np.array([tile for path in paths for tile in cut(path)])
    order = [26, 0, 9, 13, 1, 26]
    np.testing.assert_allclose(images.batch(order).numpy(), expected[order], atol=1e-6)
    np.testing.assert_allclose(images.plain().batch(range(27)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_frame_is_decoded_once_for_its_tiles(dataset, monkeypatch, limit):
    monkeypatch.setattr(images_module, "_MEMORY_LIMIT_BYTES", limit)
    decoded = []
    reader = images_module.input_of(RULE)

    class Counting:
        def read(self, path):
            decoded.append(path)
            return reader.read(path)

    monkeypatch.setattr(images_module, "input_of", lambda _: Counting())
    paths = [sample.path for sample in dataset.train[:3]]
    images = tile_set(paths)
    for start in range(0, 27, 4):
        images.batch(range(start, min(start + 4, 27)))
    assert decoded == paths


def test_tiles_need_frames_of_one_size(dataset):
    with pytest.raises(ValueError, match="a set with tiles needs a rule"):
        ImageSet([dataset.train[0].path], (48, 40), crop_px=(48, 40), tiles=TILES, **NORMALISATION)


def test_images_are_held_out_whole(run, dataset):
    record = read_record(run)
    fitted, held_out = split_good(dataset, TrainOptions())
    assert (record.training.num_images, record.training.num_holdout) == (len(fitted), len(held_out))
    assert [dataset.root / name for name in record.holdout] == held_out
    assert len(record.holdout_scores) == len(held_out)
    assert record.tiles == TILES


def test_a_detector_learns_what_it_would_of_tiles_in_files(run, dataset, tmp_path):
    fitted, _ = split_good(dataset, TrainOptions())
    paths = []
    for path in fitted:
        for number, tile in enumerate(cut(path)):
            paths.append(tmp_path / f"{path.stem}-{number}.png")
            Image.fromarray(np.uint8(np.rint(255.0 * tile.transpose(1, 2, 0)))).save(paths[-1])
    torch.manual_seed(0)
    detector = build_detector("padim", make_config("padim", SETTINGS))
    detector.fit(image_set(detector, paths), image_set(detector, paths), context=FitContext())
    learned = load_file(run / CHECKPOINT)
    assert set(learned) == set(detector.state_dict())
    for name, value in detector.state_dict().items():
        np.testing.assert_allclose(learned[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_score_of_a_file_is_the_largest_of_its_tiles(run, dataset):
    record = read_record(run)
    detector = load_detector(record.detector, run / CHECKPOINT)
    paths = [dataset.root / name for name in record.holdout]
    images = image_set(detector, paths, rule=RULE, tiles=TILES)
    with torch.inference_mode():
        scores = detector(images.batch(range(len(images))))[0].numpy()
    expected = [scores[9 * number : 9 * number + 9].max() for number in range(len(paths))]
    np.testing.assert_allclose(record.holdout_scores, expected, rtol=1e-5)
    np.testing.assert_allclose(score_images(detector, images, batch_size=2), expected, rtol=1e-5)


def test_a_score_that_is_no_number_is_not_lost(run, dataset, monkeypatch):
    detector = load_detector(read_record(run).detector, run / CHECKPOINT)
    images = image_set(detector, [dataset.train[0].path], rule=RULE, tiles=TILES)
    given = iter([1.0, float("nan"), *range(7)])
    monkeypatch.setattr(detector, "forward", lambda batch: (torch.tensor([next(given) for _ in batch]), None))
    assert np.isnan(score_images(detector, images, batch_size=4))


def test_test_images_are_scored_by_tiles(run, dataset):
    record = read_record(run)
    scores = score_test_split(run, dataset)
    assert stored_scores(run) == scores
    detector = load_detector(record.detector, run / CHECKPOINT)
    images = image_set(detector, [dataset.root / name for name in scores.files], rule=RULE, tiles=TILES)
    np.testing.assert_allclose(scores.scores, score_images(detector, images), rtol=1e-5)


def test_a_run_with_other_tiles_does_not_go_on(run, dataset):
    other = TrainOptions(tiles=dataclasses.replace(TILES, overlap_px=4))
    with pytest.raises(BadInputError, match="holds a finished run begun with other tiles"):
        train("padim", make_config("padim", SETTINGS), dataset=dataset, run=run, options=other)


def test_records_of_former_releases_have_no_tiles(run, tmp_path):
    for name in (RECORD, "train.json"):
        raw = json.loads((run / name).read_text())
        assert raw.pop("tiles") == {"height_px": 48, "width_px": 40, "overlap_px": 8}
        (tmp_path / name).write_text(json.dumps(raw))
    assert read_record(tmp_path).tiles is None
    assert read_started(tmp_path).tiles is None
    assert read_started(run).tiles == TILES


def refused(dataset, run, name="padim", tiles=TILES, **settings):
    config = make_config(name, {**SETTINGS, **settings} if name == "padim" else {})
    train(name, config, dataset=dataset, run=run, options=TrainOptions(tiles=tiles))


def test_what_cannot_be_tiled_is_refused_before_any_work(dataset, scans, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="leave stripes between tiles that nobody sees"):
        refused(dataset, run, resize_px=40)
    with pytest.raises(UsageError, match=r"tiles \(--tiles\) are 97x40, frames 96x96"):
        refused(dataset, run, tiles=dataclasses.replace(TILES, height_px=97))
    with pytest.raises(UsageError, match="they cut images, and this detector reads scans"):
        refused(scans, run, name="depth_vm")
    assert not run.exists()
