"""Pixel figures at the image's resolution are MVTec's: an independent, slow evaluation on the same maps agrees."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label as scipy_label

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.spec import Preprocessing
from lineproof.data.dataset import Sample, open_dataset
from lineproof.data.inputs.table import input_of
from lineproof.eval.accuracy.outputs import Outputs
from lineproof.eval.accuracy.report import measure_accuracy
from lineproof.eval.masks import check_resolution, judged_pixels, pack_mask, unpack_mask
from lineproof.eval.parity.paired import PairedMeter

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="session")
def make_outputs(outputs_of):
    """Blobs on maps, and masks drawn at the size of the frames: compact ones, thin lines, several per image."""

    def build(spec, map_shape, seed=0, num=8):
        rng = np.random.default_rng(seed)
        maps = rng.random((num, *map_shape)).astype(np.float32)
        maps += np.roll(maps, 1, 1) + np.roll(maps, 1, 2)
        masks = np.zeros((num, spec.frame_height_px, spec.frame_width_px), np.bool_)
        for index in range(3, num):
            for _ in range(3):
                top, left = rng.integers(0, spec.frame_height_px - 9), rng.integers(0, spec.frame_width_px - 9)
                masks[index, top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
            masks[index, np.arange(30), np.arange(40, 70)] = True
        label = masks.any(axis=(1, 2))
        for index in np.flatnonzero(label):
            rows, columns = np.nonzero(masks[index])
            scale = np.array(map_shape) / masks.shape[1:]
            maps[index, (rows * scale[0]).astype(int), (columns * scale[1]).astype(int)] += 0.7
        return outputs_of(maps, masks, spec, threshold=2.0)

    return build


def enlarged_by_torch(maps, size):
    torch = pytest.importorskip("torch")
    stack = torch.from_numpy(np.asarray(maps)).double()[:, None]
    return torch.nn.functional.interpolate(stack, size=size, mode="bilinear", align_corners=False)[:, 0].numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("map_shape", [(32, 32), (28, 40), (90, 120)])
@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_the_images_resolution_is_the_published_evaluation(map_shape, seed, limit, make_outputs, published_evaluation):
    outputs = make_outputs(
        Preprocessing.of((HEIGHT, WIDTH, 3), (64, 64), (64, 64)),
        map_shape,
        seed,
    )
    accuracy = measure_accuracy(outputs, fpr_limit=limit)
    maps = enlarged_by_torch(outputs.anomaly_map, (HEIGHT, WIDTH)).astype(np.float32)
    expected = published_evaluation(maps, [outputs.mask_of(index) for index in range(len(outputs))], limit)
    assert 0.2 < expected < 1.0
    np.testing.assert_allclose(accuracy.pixel.aupro, expected, rtol=0, atol=5e-6)
    assert accuracy.pixel.num_pixels == len(outputs) * HEIGHT * WIDTH


def test_ties_are_one_point_of_the_curve(make_outputs, published_evaluation):
    outputs = make_outputs(
        Preprocessing.of((HEIGHT, WIDTH, 3), (HEIGHT, WIDTH), (HEIGHT, WIDTH)),
        (HEIGHT, WIDTH),
    )
    coarse = np.round(np.asarray(outputs.anomaly_map) * 4) / np.float32(4)
    tied = Outputs(**{**vars(outputs), "anomaly_map": coarse})
    expected = published_evaluation(coarse, [outputs.mask_of(index) for index in range(len(outputs))])
    np.testing.assert_allclose(measure_accuracy(tied).pixel.aupro, expected, rtol=0, atol=5e-6)


def test_with_a_crop_only_seen_pixels_count(make_outputs):
    """Rows and columns whose centres lie in the cropped region, counted by hand: 90 · 8/64 = 11.25 to 78.75."""
    outputs = make_outputs(
        Preprocessing.of((HEIGHT, WIDTH, 3), (64, 64), (48, 48)),
        (48, 48),
    )
    accuracy = measure_accuracy(outputs).pixel
    part = np.s_[11:79, 15:105]
    masks = [outputs.mask_of(index)[part] for index in range(len(outputs))]
    assert accuracy.num_pixels == len(outputs) * 68 * 90
    assert accuracy.num_defect_pixels == sum(int(mask.sum()) for mask in masks)
    assert accuracy.num_components == sum(scipy_label(mask, np.ones((3, 3)))[1] for mask in masks)


def test_shrinking_a_mask_can_split_a_defect(make_outputs):
    """A thin line leaves the row on which the map's centres lie, and comes back: one defect, or two."""
    spec = Preprocessing.of((HEIGHT, WIDTH, 3), (15, 20), (15, 20))
    outputs = make_outputs(spec, (15, 20))
    masks = np.zeros((8, HEIGHT, WIDTH), np.bool_)
    masks[5, 9, 3:51] = masks[5, 10, 51:71] = masks[5, 9, 71:111] = True
    # And a small one lies between the centres: it is lost.
    masks[6, 40:42, 40:42] = masks[6, 60:70, 60:70] = True
    outputs = Outputs(**{**vars(outputs), "packed_mask": pack_mask(masks), "label": masks.any(axis=(1, 2))})
    image, shrunk = (measure_accuracy(outputs, resolution=name).pixel for name in ("image", "map"))
    assert (image.num_components, shrunk.num_components) == (3, 3)
    assert image.num_defect_pixels == 108 + 4 + 100
    assert shrunk.num_defect_pixels == 8 + 6 + 4
    assert (image.num_pixels, shrunk.num_pixels) == (8 * HEIGHT * WIDTH, 8 * 15 * 20)


def test_every_result_says_its_resolution(make_outputs):
    outputs = make_outputs(
        Preprocessing.of((HEIGHT, WIDTH, 3), (64, 64), (64, 64)),
        (32, 32),
    )
    image, shrunk = measure_accuracy(outputs), measure_accuracy(outputs, resolution="map")
    assert (image.to_dict()["pixel_resolution"], shrunk.to_dict()["pixel_resolution"]) == ("image", "map")
    assert image.pixel_sentence().startswith("Pixel figures at the image's resolution (maps enlarged bilinearly")
    assert shrunk.pixel_sentence().startswith("Pixel figures at the map's resolution (masks shrunk to the map)")
    assert image.pixel.aupro != shrunk.pixel.aupro
    assert check_resolution("map") == "map"
    with pytest.raises(UsageError, match=r"resolution \(--resolution\) is 'frame'; expected image or map"):
        check_resolution("frame")


@pytest.mark.parametrize("resolution", ["image", "map"])
def test_both_sides_of_a_verification_are_measured_alike(resolution, make_outputs):
    spec = Preprocessing.of((HEIGHT, WIDTH, 3), (64, 64), (48, 48))
    outputs = make_outputs(spec, (48, 48))
    meter = PairedMeter(spec, resolution=resolution)
    for index in range(len(outputs)):
        one = np.asarray(outputs.anomaly_map[index])
        meter.update_score(1.0, 1.0, label=int(outputs.label[index]))
        meter.update_map(one, 1 - one, mask=outputs.mask_of(index))
    result = meter.compute()
    expected = measure_accuracy(outputs, resolution=resolution).pixel
    assert (result.pixel_auroc.reference, result.aupro.reference) == (expected.auroc, expected.aupro)
    np.testing.assert_allclose(result.pixel_auroc.engine, 1 - expected.auroc, atol=1e-9)
    assert result.pixel_resolution == resolution


def test_a_mask_is_read_as_it_was_drawn_or_refused(tmp_path):
    spec = Preprocessing.of((12, 16, 3), (12, 16), (12, 16))
    drawn = np.random.default_rng(0).random((12, 16)) < 0.3
    Image.fromarray(drawn.astype(np.uint8) * 255).save(tmp_path / "m.png")
    bad = Sample(path=tmp_path / "x.png", label=1, defect="dent", mask_paths=(tmp_path / "m.png",), split="test")
    np.testing.assert_array_equal(input_of(spec).read_mask(bad), drawn)
    with pytest.raises(BadInputError, match="16x12"):
        input_of(Preprocessing.of((24, 32, 3), (12, 16), (12, 16))).read_mask(bad)
    with pytest.raises(BadInputError, match="The mask is 8x8 pixels, the frames 16x12"):
        judged_pixels(np.zeros((4, 4), np.float32), np.zeros((8, 8), np.bool_), spec, resolution="image")


@pytest.mark.parametrize("width", [1, 7, 8, 9, 512])
def test_masks_are_bits_and_come_back(width):
    mask = np.random.default_rng(0).random((3, 5, width)) < 0.5
    packed = pack_mask(mask)
    assert packed.nbytes == 3 * 5 * -(-width // 8)
    np.testing.assert_array_equal(unpack_mask(packed, width), mask)
    assert unpack_mask(packed, width).dtype == np.bool_


def test_outputs_whose_parts_do_not_belong_together_are_refused(make_outputs):
    outputs = make_outputs(
        Preprocessing.of((HEIGHT, WIDTH, 3), (64, 64), (64, 64)),
        (32, 32),
    )
    for change in ({"packed_mask": outputs.packed_mask[:, :45]}, {"label": outputs.label[:3]}):
        with pytest.raises(BadInputError, match=r"Outputs of 8 images .*expected packed masks \(8, 90, 15\)"):
            Outputs(**{**vars(outputs), **change})


@pytest.mark.realdata
def test_the_defects_of_screws_are_135_and_shrinking_splits_one(shared_data):
    dataset = open_dataset(shared_data / "mvtec_ad", category="screw")
    spec = Preprocessing.of((512, 512, 3), (256, 256), (256, 256))
    counted = {"image": 0, "map": 0}
    for sample in (sample for sample in dataset.test if sample.label):
        mask = input_of(spec).read_mask(sample)
        for resolution in counted:
            _, judged = judged_pixels(np.zeros((256, 256), np.float32), mask, spec, resolution=resolution)
            counted[resolution] += scipy_label(judged, np.ones((3, 3)))[1]
    assert counted == {"image": 135, "map": 136}


@pytest.mark.realdata
def test_real_masks_are_evaluated_as_published(shared_data, outputs_of, published_evaluation):
    """Masks of screws as they were drawn, 512 x 512, under made maps of 64 x 64."""
    dataset = open_dataset(shared_data / "mvtec_ad", category="screw")
    spec = Preprocessing.of((512, 512, 3), (256, 256), (256, 256))
    masks = np.stack([input_of(spec).read_mask(sample) for sample in dataset.test[::8]])
    rng = np.random.default_rng(0)
    maps = rng.random((len(masks), 64, 64)).astype(np.float32)
    maps += masks.reshape(len(masks), 64, 8, 64, 8).mean((2, 4), dtype=np.float32)
    label = masks.any(axis=(1, 2))
    assert 10 < label.sum() < len(label)
    outputs = outputs_of(maps, masks, spec, threshold=2.0)
    expected = published_evaluation(enlarged_by_torch(maps, (512, 512)).astype(np.float32), masks)
    np.testing.assert_allclose(measure_accuracy(outputs).pixel.aupro, expected, rtol=0, atol=5e-6)
