"""Golden frames: the frames and reference outputs that travel with a bundle."""

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError
from lineproof.core.spec import Preprocessing
from lineproof.export.golden import NUM_GOOD, NUM_MARKED, apart_from, golden_frames


def make_spec(height=12, width=18, channels=3, fit="none"):
    return Preprocessing.of((height, width, channels), (6, 6), (6, 6), fit=fit)


@pytest.fixture
def images(tmp_path):
    """20 noisy images of 18x12 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "good"
    folder.mkdir()
    paths = []
    for index in range(20):
        paths.append(folder / f"{index:02d}.png")
        Image.fromarray(rng.integers(0, 256, (12, 18, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_frames_of_the_right_size_are_the_pixels_of_the_file(images):
    frames, names = golden_frames(images, make_spec())
    assert frames.shape == (NUM_GOOD + NUM_MARKED, 12, 18, 3)
    assert frames.dtype == np.uint8
    chosen = [int(name.removeprefix("good/").removesuffix(".png")) for name in names[:NUM_GOOD]]
    assert chosen == [0, 3, 6, 9, 12, 15]
    for frame, index in zip(frames, chosen, strict=False):
        np.testing.assert_array_equal(frame, pixels(images[index]))
    assert list(names[NUM_GOOD:]) == ["good/00.png+mark", "good/03.png+mark"]


def test_of_images_that_were_fitted_each_has_a_marked_copy(images):
    frames, names = golden_frames(images, make_spec(), are_fitted=True)
    assert len(frames) == len(names) == 8
    assert [f"{name}+mark" for name in names[:4]] == list(names[4:])
    for good, marked in zip(frames[:4], frames[4:], strict=True):
        assert not np.array_equal(good, marked)


def test_marked_frames_differ_in_one_patch_and_are_the_same_each_time(images):
    frames, _ = golden_frames(images, make_spec())
    again, _ = golden_frames(images, make_spec())
    np.testing.assert_array_equal(frames, again)
    for good, marked in zip(frames[:NUM_MARKED], frames[NUM_GOOD:], strict=True):
        rows, columns = np.nonzero((good != marked).any(2))
        assert len(rows)
        assert np.ptp(rows) < 12 // 6
        assert np.ptp(columns) < 18 // 6


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
def test_fewer_images_give_fewer_frames(images, count):
    frames, names = golden_frames(images[:count], make_spec())
    good = min(count, NUM_GOOD)
    assert len(frames) == len(names) == good + min(good, NUM_MARKED)
    assert len(set(names)) == len(names)


def test_missing_files_are_left_out_and_none_left_is_an_error(images):
    for path in images[3:]:
        path.unlink()
    frames, names = golden_frames(images, make_spec())
    assert [*names[:3]] == ["good/00.png", "good/01.png", "good/02.png"]
    assert len(frames) == 3 + NUM_MARKED
    for path in images[:3]:
        path.unlink()
    with pytest.raises(
        BadInputError, match=r"None of the 20 held-out images of this run is where it was \(.*00\.png\)"
    ):
        golden_frames(images, make_spec())
    with pytest.raises(BadInputError, match=r"None of the 0 held-out images"):
        golden_frames([], make_spec())


def test_mono_frames_are_the_decoders_grey(images):
    frames, _ = golden_frames(images, make_spec(channels=1))
    assert frames.shape == (NUM_GOOD + NUM_MARKED, 12, 18, 1)
    with Image.open(images[0]) as image:
        np.testing.assert_array_equal(frames[0, :, :, 0], np.asarray(image.convert("L")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(24, 36), (7, 5), (12, 9)])
def test_another_frame_size_is_resampled_where_the_rule_says_so(images, height, width, channels):
    frames, _ = golden_frames(images, make_spec(height, width, channels, fit="stretch"))
    frame = frames[0]
    assert frame.shape == (height, width, channels)
    with Image.open(images[0]) as image:
        want = image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(frame.squeeze(), np.asarray(want))


def test_another_frame_size_without_a_rule_is_refused(images):
    with pytest.raises(BadInputError, match=r"00\.png: the image is 12x18 \(height x width\); frames are 24x36 here"):
        golden_frames(images, make_spec(24, 36))


def test_golden_frames_are_those_on_which_the_reference_decides(images):
    scores = [0.1, 0.2, 0.45, 0.5, 0.55, *[0.3] * (len(images) - 5)]
    apart = apart_from(images, scores, threshold=0.5, distance=0.06)
    assert apart == tuple(path for path, score in zip(images, scores, strict=True) if score not in (0.5, 0.45, 0.55))
    # Where hardly any lies apart the detector decides nothing, and no choice of frames may hide it.
    assert apart_from(images, scores, threshold=0.5, distance=0.35) == tuple(images)
