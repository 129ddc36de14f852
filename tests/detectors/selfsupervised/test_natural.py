import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")
pytest.importorskip("scipy")

from lineproof.detectors.selfsupervised import natural  # noqa: E402
from lineproof.detectors.selfsupervised.natural import (  # noqa: E402
    ViewRule,
    _draw_patch,
    add_anomaly,
    clone,
    foreground,
    label,
    view,
)
from lineproof.detectors.selfsupervised.natural_rules import PatchRule, shows  # noqa: E402

RULE = PatchRule(
    num_patches=3,
    smallest=0.03,
    largest=(0.2, 0.4),
    scales=(0.7, 1.3),
    mixes=False,
    background=None,
    object_share=0.7,
    overlap_share=0.25,
    steepness=1 / 3,
    middle=7.0,
)


def changed(rule, **values):
    return dataclasses.replace(rule, **values)


@pytest.fixture
def cloned(monkeypatch):
    """Where patches were cloned to, in order."""
    places = []

    def noted(patch, image, place, *, mixes):
        places.append(place)
        return clone(patch, image, place, mixes=mixes)

    monkeypatch.setattr(natural, "clone", noted)
    return places


def smooth_image(seed, size=(96, 128)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3.0))


def part_on_bright(left):
    """A dark square of 40 pixels on a bright ground, with noise of single pixels."""
    image = np.full((96, 96, 3), 200, np.uint8)
    image[30:70, left : left + 40] = np.random.default_rng(left).integers(40, 100, (40, 40, 1))
    image[5, 5] = 0
    return image


def test_a_clone_solves_poissons_equation():
    """On one channel, its own solution by Jacobi's iteration: the patch's Laplacian inside, the image around it."""
    image, other = smooth_image(0), smooth_image(1)
    place = (slice(20, 44), slice(50, 80))
    patch = np.ascontiguousarray(other[10:34, 10:40])
    got = clone(patch, image, place, mixes=False)
    outside = np.ones(image.shape[:2], bool)
    outside[21:43, 51:79] = False
    np.testing.assert_array_equal(got[outside], image[outside])
    want = image[place].astype(np.float64)
    source = patch.astype(np.float64)
    # OpenCV takes the patch's gradients three pixels inside the mask, and the image's between there and its edge.
    inner = np.zeros(patch.shape[:2], bool)
    inner[4:-4, 4:-4] = True
    down = np.where(inner[:-1, :, None], np.diff(source, axis=0), np.diff(want, axis=0))
    right = np.where(inner[:, :-1, None], np.diff(source, axis=1), np.diff(want, axis=1))
    divergence = (down[1:, 1:-1] - down[:-1, 1:-1]) + (right[1:-1, 1:] - right[1:-1, :-1])
    for _ in range(4000):
        around = want[:-2, 1:-1] + want[2:, 1:-1] + want[1:-1, :-2] + want[1:-1, 2:]
        want[1:-1, 1:-1] = (around - divergence) / 4.0
    difference = np.abs(got[place].astype(np.float64) - np.clip(want, 0.0, 255.0))
    assert np.abs(got[place].astype(int) - image[place]).max() > 20
    assert difference.mean() < 1.0, difference.mean()


@pytest.mark.parametrize("mixes", [False, True])
def test_an_image_cloned_into_itself_does_not_move(mixes):
    image = smooth_image(2)
    for height, width in ((9, 12), (20, 31), (21, 30), (39, 51)):
        place = (slice(30, 30 + height), slice(40, 40 + width))
        got = clone(np.ascontiguousarray(image[place]), image, place, mixes=mixes)
        assert np.abs(got.astype(int) - image).max() <= 1


def test_a_patch_too_small_to_show_changes_nothing():
    image = smooth_image(3)
    for height, width in ((2, 60), (4, 60), (9, 8), (5, 4)):
        place = (slice(10, 10 + height), slice(10, 10 + width))
        patch = np.full((height, width, 3), 255, np.uint8)
        np.testing.assert_array_equal(clone(patch, image, place, mixes=False), image)


def test_labels_are_logistic_in_the_smoothed_change():
    """Against loops over pixels and windows."""
    rng = np.random.default_rng(4)
    image = rng.integers(100, 150, (30, 34, 3), dtype=np.uint8)
    after = image.copy()
    after[8:24, 9:28] += rng.integers(0, 40, (16, 19, 1), dtype=np.uint8)
    pasted = np.zeros((30, 34), np.uint8)
    pasted[8:24, 9:26] = 1
    change = np.zeros((30, 34))
    for y, x in np.ndindex(30, 34):
        change[y, x] = pasted[y, x] * np.mean([abs(int(image[y, x, c]) - int(after[y, x, c])) for c in range(3)])

    def window(values, y, x, offsets):
        clipped = ((min(max(y + b, 0), 29), min(max(x + a, 0), 33)) for b, a in offsets)
        return float(np.median([values[item] for item in clipped]))

    square = [(b, a) for b in range(-2, 3) for a in range(-2, 3)]
    disk = [(b, a) for b in range(-5, 6) for a in range(-5, 6) if a * a + b * b <= 25]
    marked = np.array([[window(change > 1, y, x, square) for x in range(34)] for y in range(30)])
    smooth = np.array([[window(change * marked, y, x, disk) for x in range(34)] for y in range(30)])
    want = marked / (1.0 + np.exp(-(smooth - 7.0) / 3.0))
    got = label(image, after, pasted, RULE)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert got[:, 26:].max() == 0.0
    assert 0.5 < got.max() < 1.0
    np.testing.assert_array_equal(label(image, image, pasted, RULE), 0.0)


def test_an_object_differs_from_the_background_and_grain_is_none():
    image = part_on_bright(20)
    objects = foreground(image, (200, 60))
    assert objects[35:65, 25:55].all()
    assert objects[:25].max() == 0, "a single dark pixel is grain"
    assert foreground(image, None).all()
    np.testing.assert_array_equal(foreground(image // 10, (20, 20)), 0)


def test_patches_lie_on_objects(cloned):
    """Half of a patch at least is an object, of which a quarter lies on the image's: an eighth of the patch."""
    rule = changed(RULE, background=(200, 60), object_share=0.5)
    image, source = part_on_bright(20), part_on_bright(40)
    objects = foreground(image, (200, 60))
    marked = 0
    for seed in range(40):
        _, labels = add_anomaly(image, source, rule, np.random.default_rng(seed))
        marked += bool(labels.any())
    assert marked > 30
    assert len(cloned) >= marked
    for place in cloned:
        assert objects[place].mean() > 0.125
    anywhere = len(cloned)
    for seed in range(40):
        add_anomaly(image, source, RULE, np.random.default_rng(seed))
    assert not all(objects[place].mean() > 0.125 for place in cloned[anywhere:])


def test_no_object_means_no_anomaly():
    rule = changed(RULE, background=(200, 60))
    empty = np.full((96, 96, 3), 200, np.uint8)
    after, labels = add_anomaly(empty, empty, rule, np.random.default_rng(0))
    np.testing.assert_array_equal(after, empty)
    np.testing.assert_array_equal(labels, 0.0)


def test_sizes_of_patches_are_gamma_distributed_within_their_limits():
    """At the paper's scale of 1 the sides are twice (0.03 + Gamma(2, 0.05)) of the shorter side, clipped."""
    rule = changed(RULE, largest=(0.49, 0.49), scales=(1.0, 1.0))
    source = np.zeros((400, 500, 3), np.uint8)
    objects = np.ones((400, 500), np.uint8)
    rng = np.random.default_rng(0)
    sides = [_draw_patch(source, objects, rule, rng).foreground.shape for _ in range(600)]
    assert min(min(pair) for pair in sides) >= 12
    assert max(max(pair) for pair in sides) <= 196
    # Windows are cut by the border, so that whole sides are shorter on the average than 2 · 0.13 · 400.
    assert 75 < np.mean(sides) < 104
    narrow = changed(RULE, largest=(0.05, 0.4))
    shapes = np.array([_draw_patch(source, objects, narrow, rng).foreground.shape for _ in range(300)])
    assert shapes[:, 0].max() <= 20
    assert 60 < shapes[:, 1].max() <= 160


def test_the_first_patch_is_certain_and_each_other_a_coin(cloned):
    """Three patches: one in a quarter of the images, all three in a quarter."""
    image, source = np.zeros((128, 128, 3), np.uint8), smooth_image(6, (128, 128))
    counts = []
    for seed in range(400):
        before = len(cloned)
        add_anomaly(image, source, RULE, np.random.default_rng(seed))
        counts.append(len(cloned) - before)
    shares = np.bincount(counts, minlength=4) / 400
    np.testing.assert_allclose(shares, [0.0, 0.25, 0.5, 0.25], rtol=0, atol=0.08)


def test_views_are_cut_turned_and_flipped():
    image = smooth_image(7, (100, 120))
    rule = ViewRule(crop_px=(64, 96), shift_px=6, rotation_degrees=0.0, flips_vertically=False)
    tops = set()
    for seed in range(60):
        seen = view(image, rule, np.random.default_rng(seed))
        places = [
            (top, left)
            for top in range(15, 22)
            for left in range(9, 16)
            if np.array_equal(image[top : top + 64, left : left + 96], seen)
        ]
        assert len(places) == 1
        tops.add(places[0][0])
    assert tops == set(range(15, 22))
    still = ViewRule(crop_px=(64, 96), shift_px=0, rotation_degrees=0.0, flips_vertically=True)
    both = {view(image, still, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    middle = image[18:82, 12:108]
    assert both == {middle.tobytes(), middle[::-1].tobytes()}


def test_a_turned_view_is_scipys_rotation():
    from scipy import ndimage

    image = smooth_image(8, (100, 120))
    rule = ViewRule(crop_px=(100, 120), shift_px=0, rotation_degrees=5.0, flips_vertically=False)
    angle = np.random.default_rng(3).uniform(-5.0, 5.0)
    assert abs(angle) > 1.0
    seen = view(image, rule, np.random.default_rng(3))
    turned = [
        ndimage.rotate(image[..., channel].astype(float), sign * angle, reshape=False, order=1, mode="mirror")
        for channel in range(3)
        for sign in (1.0, -1.0)
    ]
    either = [np.abs(seen - np.stack(turned[side::2], 2)).mean() for side in (0, 1)]
    assert min(either) < 0.6
    # At a size that leaves no margin, what lies beyond the border is its mirror image.
    shifted = ViewRule(crop_px=(100, 120), shift_px=6, rotation_degrees=0.0, flips_vertically=False)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    seen = view(image, shifted, np.random.default_rng(0))
    windows = (padded[top : top + 100, left : left + 120] for top in range(7) for left in range(7))
    assert any(np.array_equal(window, seen) for window in windows)


@pytest.mark.parametrize("largest", [(0.4, 0.4), (0.2, 0.2), (0.12, 0.12), (0.15, 0.4)])
@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_the_usual_patch_shows_where_enough_of_those_drawn_do(side, largest):
    rule, rng = changed(RULE, largest=largest), np.random.default_rng(0)
    image, objects = np.zeros((side, side, 3), np.uint8), np.ones((side, side), np.uint8)
    drawn = [shows(_draw_patch(image, objects, rule, rng).foreground.shape) for _ in range(300)]
    assert shows(rule.usual_px((side, side))) == (np.mean(drawn) > 0.2)


@pytest.mark.parametrize("height", [1, 4, 5, 9, 10, 16, 18, 19, 24])
@pytest.mark.parametrize("width", [4, 5, 9, 24])
def test_a_clone_shows_where_its_size_says_so(height, width):
    image, source = smooth_image(0), smooth_image(1)
    place = (slice(20, 20 + height), slice(30, 30 + width))
    is_changed = not np.array_equal(clone(source[place], image, place, mixes=False), image)
    assert is_changed == shows((height, width))
