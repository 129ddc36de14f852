"""From an image to the frame that a bundle takes: exact arrays for each rule, masks in step, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.core.linear import antialias_matrix
from lineproof.core.spec import FrameRule, Preprocessing
from lineproof.data.inputs.table import input_of
from lineproof.data.records import Sample
from lineproof.data.sizes import choose_frame, describe_sizes, frame_sentence, survey

#: A grey image whose pixel at row r, column c holds 10 r + c.
GREY = (10 * np.arange(4)[:, None] + np.arange(5)).astype(np.uint8)


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_a_image_of_the_frames_size_is_never_touched():
    image = image_of(9, 12)
    mask = image[:, :, 0] > 128
    for fit in ("none", "stretch", "pad", "crop"):
        assert input_of(FrameRule.of((9, 12), fit=fit)).fit(image) is image
        assert input_of(FrameRule.of((9, 12), fit=fit)).fit_mask(mask) is mask


def test_pad_repeats_the_border_around_the_unscaled_image():
    frame = input_of(FrameRule(frame_height_px=6, frame_width_px=8, frame_channels=1, fit="pad")).fit(GREY[:, :, None])
    # Two rows more: one above, one below. Three columns more: round(1.5) = 2 on the left, one on the right.
    expected = [
        [0, 0, 0, 1, 2, 3, 4, 4],
        [0, 0, 0, 1, 2, 3, 4, 4],
        [10, 10, 10, 11, 12, 13, 14, 14],
        [20, 20, 20, 21, 22, 23, 24, 24],
        [30, 30, 30, 31, 32, 33, 34, 34],
        [30, 30, 30, 31, 32, 33, 34, 34],
    ]
    np.testing.assert_array_equal(frame[:, :, 0], expected)
    assert frame.dtype == np.uint8


def test_crop_takes_the_centre_of_the_unscaled_image():
    frame = input_of(FrameRule(frame_height_px=2, frame_width_px=2, frame_channels=1, fit="crop")).fit(GREY[:, :, None])
    # round((4 - 2) / 2) = 1 row above, round((5 - 2) / 2) = 2 columns on the left.
    np.testing.assert_array_equal(frame[:, :, 0], [[12, 13], [22, 23]])
    assert frame.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(24, 30), (5, 7), (12, 9)])
def test_stretch_is_the_antialiased_bilinear_resize(height, width):
    image = image_of(12, 18)
    frame = input_of(FrameRule.of((height, width), fit="stretch")).fit(image)
    exact = np.einsum("ah,bw,hwc->abc", antialias_matrix(12, height), antialias_matrix(18, width), image.astype(float))
    # Pillow works in fixed point and rounds to grey levels after each axis.
    np.testing.assert_allclose(frame, exact, atol=1.01)
    with_pillow = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(frame, np.asarray(with_pillow))
    assert frame.flags.writeable


@pytest.mark.parametrize("sizes", [((5, 6), (9, 11)), ((7, 8), (8, 8)), ((6, 9), (11, 9)), ((4, 4), (7, 5))])
def test_crop_undoes_pad(sizes):
    (height, width), (taller, wider) = sizes
    image = image_of(height, width)
    padded = input_of(FrameRule.of((taller, wider), fit="pad")).fit(image)
    assert padded.shape == (taller, wider, 3)
    np.testing.assert_array_equal(input_of(FrameRule.of((height, width), fit="crop")).fit(padded), image)


@pytest.mark.parametrize(
    ("fit", "height", "width"),
    [
        *(("stretch", *size) for size in [(12, 16), (13, 16), (9, 11), (6, 8), (24, 32)]),
        *(("pad", *size) for size in [(12, 16), (11, 16), (9, 11), (6, 8)]),
        *(("crop", *size) for size in [(12, 16), (13, 16), (17, 21), (24, 32)]),
    ],
)
def test_a_mask_stays_on_its_defect(fit, height, width):
    """Every pixel of the frame that shows the defect's colour is marked, and no other."""
    mask = np.zeros((height, width), bool)
    mask[height // 3 : 2 * height // 3, width // 4 : width // 2] = True
    image = np.where(mask[:, :, None], np.uint8([200]), np.uint8([20]))
    rule = FrameRule(frame_height_px=12, frame_width_px=16, frame_channels=1, fit=fit)
    frame, marked = input_of(rule).fit(image)[:, :, 0], input_of(rule).fit_mask(mask)
    assert marked.shape == (12, 16)
    assert marked.any()
    if fit == "stretch":
        assert frame[marked].min() >= 110
        assert frame[~marked].max() <= 110
    else:
        np.testing.assert_array_equal(marked, frame == 200)


def test_a_padded_border_is_not_defective_though_it_repeats_a_defect():
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    marked = input_of(FrameRule.of((8, 4), fit="pad")).fit_mask(mask)
    np.testing.assert_array_equal(np.flatnonzero(marked.any(axis=1)), [2])


def test_a_stretched_mask_takes_the_pixel_under_each_centre():
    mask = np.array([[True, False, False, True, False]])
    np.testing.assert_array_equal(
        input_of(FrameRule.of((1, 3), fit="stretch")).fit_mask(mask), [[True, False, False]]
    )  # centres at 0.83, 2.5, 4.17
    np.testing.assert_array_equal(
        input_of(FrameRule.of((2, 4), fit="stretch")).fit_mask(mask[:, :2]),
        [[True, True, False, False]] * 2,
    )


@pytest.mark.parametrize(
    ("fit", "size", "words"),
    [
        ("none", (11, 16), r"11x16 \(height x width\); frames are 12x16 here, and images are never resized silently"),
        ("pad", (13, 16), r"13x16 \(height x width\); fit pad takes images up to 12x16.*larger --frame"),
        ("pad", (8, 17), "fit pad takes images up to 12x16"),
        ("crop", (12, 15), r"12x15 \(height x width\); fit crop takes images from 12x16.*smaller --frame"),
        ("crop", (11, 40), "fit crop takes images from 12x16"),
    ],
)
def test_a_image_that_the_rule_does_not_take_is_refused(tmp_path, fit, size, words):
    rule = FrameRule.of((12, 16), fit=fit)
    path = save(tmp_path / "a.png", image_of(*size))
    with pytest.raises(BadInputError, match=rf"^{path}: the image is .*{words}" if size != (8, 17) else words):
        input_of(rule).read(path)
    with pytest.raises(BadInputError, match=words):
        input_of(rule).fit_mask(np.zeros(size, bool))


@pytest.mark.parametrize("channels", [1, 3])
def test_read_frame_decodes_then_fits(tmp_path, channels):
    path = save(tmp_path / "a.png", image_of(8, 10))
    frame = input_of(Preprocessing.of((12, 16, channels), (12, 16), (12, 16), fit="pad")).read(path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(8, 10, channels)
    np.testing.assert_array_equal(frame, np.pad(pixels, [(2, 2), (3, 3), (0, 0)], mode="edge"))
    np.testing.assert_array_equal(
        input_of(FrameRule(frame_height_px=12, frame_width_px=16, frame_channels=channels)).as_rgb(frame),
        np.broadcast_to(frame, (12, 16, 3)),
    )


def test_conversions_are_told_once_per_image_that_was_read(tmp_path):
    rule = FrameRule.of((12, 16))
    conversions = input_of(rule).conversions()
    for index in range(3):
        input_of(rule).read(save(tmp_path / f"{index}.png", image_of(12, 16)[:, :, 0]), conversions=conversions)
    input_of(rule).read(save(tmp_path / "rgb.png", image_of(12, 16)), conversions=conversions)
    with pytest.raises(BadInputError, match="11x16"):
        input_of(rule).read(save(tmp_path / "odd.png", image_of(11, 16)[:, :, 0]), conversions=conversions)
    assert conversions.summary_lines() == ("3 of 4 images: grey, repeated to R, G and B for a colour bundle.",)


def test_twelve_bits_in_sixteen_are_read_by_the_rules_depth(tmp_path):
    values = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 21
    path = save(tmp_path / "wide.png", values)
    expected = np.repeat((values >> 4).astype(np.uint8)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(input_of(FrameRule.of((12, 16), bit_depth=12)).read(path), expected)
    np.testing.assert_array_equal(input_of(FrameRule.of((12, 16))).read(path)[:, :, 0], values >> 8)
    said = " ".join(survey([path]).conversions.summary_lines())
    assert "12 bits in 16" in said
    assert "give --bit-depth 12" in said
    assert "give --bit-depth" not in " ".join(survey([path], bit_depth=12).conversions.summary_lines())


def test_survey_counts_sizes_and_stops_at_a_broken_file(tmp_path):
    paths = [save(tmp_path / f"{i}.png", image_of(10 + i % 2, 12)) for i in range(5)]
    heard = []
    surveyed = survey(paths, progress=lambda *event: heard.append(event))
    assert surveyed.sizes == {(10, 12): 3, (11, 12): 2}
    assert describe_sizes(surveyed.sizes) == "10x12 (3), 11x12 (2)"
    assert heard == [("images", i, 5) for i in range(1, 6)]
    paths[2].write_bytes(paths[2].read_bytes()[:60])
    with pytest.raises(BadInputError, match=r"2\.png"):
        survey(paths)


#: As one category of a real set: heights from 1,200 to 1,300, one width, the common size in the middle.
HEIGHTS = {(1200, 1000): 3, (1250, 1000): 20, (1249, 1000): 8, (1251, 1000): 7, (1275, 1000): 2, (1300, 1000): 4}


def test_several_sizes_without_a_fit_are_refused_with_what_to_do():
    with pytest.raises(BadInputError) as caught:
        choose_frame(HEIGHTS)
    message = str(caught.value)
    assert "The 44 training images have 6 sizes: 1250x1000 (20), 1249x1000 (8), 1251x1000 (7), " in message
    assert "1300x1000 (4), 1200x1000 (3) and 1 more sizes" not in message
    assert "1300x1000 (4), 1200x1000 (3) and 1 more size" in message
    assert all(f"--fit {fit}" in message for fit in ("pad", "crop", "stretch"))
    with pytest.raises(BadInputError, match="have 6 sizes"):
        choose_frame(HEIGHTS, frame=(1250, 1000))


@pytest.mark.parametrize(("fit", "frame"), [("pad", (1300, 1000)), ("crop", (1200, 1000)), ("stretch", (1250, 1000))])
def test_the_default_frame_takes_every_image(fit, frame):
    assert choose_frame(HEIGHTS, fit=fit) == frame
    for size in HEIGHTS:
        assert input_of(FrameRule(frame_height_px=frame[0], frame_width_px=frame[1], frame_channels=1, fit=fit)).fit(
            np.zeros((*size, 1), np.uint8)
        ).shape == (*frame, 1)
    said = frame_sentence(HEIGHTS, frame, fit=fit)
    num = HEIGHTS[frame]
    assert said.startswith(f"Frames are {frame[0]}x{frame[1]} (height x width), fit {fit}: {num} of 44 images have")


def test_pad_and_crop_choose_each_side_by_itself():
    sizes = {(10, 30): 2, (20, 25): 5}
    assert choose_frame(sizes, fit="pad") == (20, 30)
    assert choose_frame(sizes, fit="crop") == (10, 25)


def test_a_named_frame_must_take_every_image():
    assert choose_frame(HEIGHTS, fit="pad", frame=(1400, 1024)) == (1400, 1024)
    assert choose_frame(HEIGHTS, fit="crop", frame=(1000, 1000)) == (1000, 1000)
    assert choose_frame(HEIGHTS, fit="stretch", frame=(600, 500)) == (600, 500)
    with pytest.raises(BadInputError, match=r"cannot bring 6 of the 44 .* to it: 1300x1000 \(4\), 1275x1000 \(2\)\."):
        choose_frame(HEIGHTS, fit="pad", frame=(1260, 1000))
    with pytest.raises(
        BadInputError, match=r"frame \(--frame\) is 1201x1000 .* cannot bring 3 of .*name a smaller one"
    ):
        choose_frame(HEIGHTS, fit="crop", frame=(1201, 1000))


def test_one_size_needs_no_fit_and_another_frame_does():
    assert choose_frame({(10, 12): 4}) == (10, 12)
    assert choose_frame({(10, 12): 4}, frame=(10, 12)) == (10, 12)
    assert frame_sentence({(10, 12): 4}, (10, 12), fit="none") == ""
    with pytest.raises(
        UsageError, match=r"frame \(--frame\) is 20x24\. The 4 training images have 1 size: 10x12 \(4\)"
    ):
        choose_frame({(10, 12): 4}, frame=(20, 24))
    assert choose_frame({(10, 12): 4}, fit="pad", frame=(20, 24)) == (20, 24)


@pytest.mark.parametrize("fit", ["", "Pad", "letterbox"])
def test_an_unknown_fit_is_refused(fit):
    with pytest.raises(UsageError, match=rf"fit \(--fit\) is '{fit}'; expected stretch, pad, crop"):
        FrameRule.of((10, 12), fit=fit)
    with pytest.raises(UsageError, match=r"fit \(--fit\) is"):
        Preprocessing.of((8, 8, 3), (8, 8), (8, 8), fit=fit)


@pytest.mark.parametrize("bit_depth", [0, 7, 17, -12])
def test_an_impossible_bit_depth_is_refused(bit_depth):
    with pytest.raises(UsageError, match=rf"bit_depth \(--bit-depth\) is {bit_depth}; expected 8 to 16"):
        FrameRule.of((10, 12), bit_depth=bit_depth)
    with pytest.raises(UsageError, match=r"bit_depth \(--bit-depth\) is"):
        Preprocessing.of((8, 8, 3), (8, 8), (8, 8), bit_depth=bit_depth)


def test_masks_are_read_at_their_images_size_and_brought_to_the_frame(tmp_path):
    path = save(tmp_path / "a.png", image_of(10, 14))
    drawn = np.zeros((10, 14), np.uint8)
    drawn[2:5, 3:9] = 255
    mask_path = save(tmp_path / "m.png", drawn)
    bad = Sample(path=path, label=1, defect="dent", mask_paths=(mask_path,), split="test")
    expected = np.zeros((12, 16), bool)
    expected[3:6, 4:10] = True
    np.testing.assert_array_equal(input_of(FrameRule.of((12, 16), fit="pad")).read_mask(bad), expected)
    with pytest.raises(BadInputError, match=r"the mask is 14x10 pixels, its image 16x12"):
        input_of(FrameRule.of((12, 16))).read_mask(bad)
    save(tmp_path / "a.png", image_of(9, 14))
    with pytest.raises(BadInputError, match=r"the mask is 14x10 pixels, its image 14x9"):
        input_of(FrameRule.of((12, 16), fit="pad")).read_mask(bad)
    unmarked = Sample(path=path, label=1, defect="dent", mask_paths=(), split="test")
    assert input_of(FrameRule.of((12, 16), fit="pad")).read_mask(unmarked) is None
    good = Sample(path=path, label=0, defect="good", mask_paths=(), split="test")
    np.testing.assert_array_equal(input_of(FrameRule.of((12, 16), fit="pad")).read_mask(good), np.zeros((12, 16), bool))
    path.write_bytes(b"no image at all")
    with pytest.raises(BadInputError, match="this is no image that can be read"):
        input_of(FrameRule.of((12, 16), fit="pad")).read_mask(bad)
