import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.detectors.selfsupervised.synthetic import (  # noqa: E402
    AUGMENTATIONS,
    anomaly_mask,
    augment,
    make_pair,
    perlin_noise,
    procedural_texture,
    rotate,
)

SIZE = 48


def rng(seed=0):
    return np.random.default_rng(seed)


def texture(generator):
    return procedural_texture((SIZE, SIZE), generator)


def pair(seed, *, rotation_share=0.0, clean_share=0.0, original=None):
    good = rng(99).random((3, SIZE, SIZE), np.float32) if original is None else original
    return make_pair(good, texture=texture, rng=rng(seed), rotation_share=rotation_share, clean_share=clean_share)


def test_noise_vanishes_on_its_lattice_and_nowhere_else():
    noise = perlin_noise(SIZE, (4, 8), rng())
    np.testing.assert_allclose(noise[:: SIZE // 4, :: SIZE // 8], 0.0, atol=1e-7)
    assert noise.shape == (SIZE, SIZE)
    assert noise.dtype == np.float32
    assert np.abs(noise).max() <= 1.0 + 1e-6
    assert noise.std() > 0.15


def test_noise_is_continuous_across_cells():
    noise = perlin_noise(480, (4, 4), rng())
    assert np.abs(np.diff(noise, axis=0)).max() < 0.05
    assert np.abs(np.diff(noise, axis=1)).max() < 0.05


def test_rotation_by_a_quarter_is_exact():
    image = rng().random((3, 16, 16), np.float32)
    np.testing.assert_allclose(rotate(image, 0.0), image, atol=1e-5)
    np.testing.assert_allclose(rotate(rotate(image, 90.0), -90.0), image, atol=1e-4)
    quarter = rotate(image, 90.0)
    turned = [np.rot90(image, k, axes=(1, 2)) for k in (1, 3)]
    assert min(np.abs(quarter - item).max() for item in turned) < 1e-4


@pytest.mark.parametrize("size", [(30, 90), (90, 30)])
def test_a_rectangle_is_rotated_without_being_sheared(size):
    image = rng().random((3, *size), np.float32)
    np.testing.assert_allclose(rotate(image, 180.0), image[:, ::-1, ::-1], atol=1e-4)
    short = min(size)
    top, left = ((side - short) // 2 for side in size)
    inside = np.s_[:, top : top + short, left : left + short]
    middle, quarter = image[inside], rotate(image, 90.0)
    turned = [np.rot90(middle, k, axes=(1, 2)) for k in (1, 3)]
    assert min(np.abs(quarter[inside] - item).max() for item in turned) < 1e-3
    quarter[inside] = 0.0
    assert np.abs(quarter).max() < 1e-3


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (33, 64)])
def test_a_rectangle_takes_the_middle_of_its_square(size):
    side = max(size)
    top, left = (round((side - length) / 2) for length in size)
    inside = np.s_[..., top : top + size[0], left : left + size[1]]
    for seed in range(8):
        np.testing.assert_array_equal(anomaly_mask(size, rng(seed)), anomaly_mask((side, side), rng(seed))[inside])
    made = procedural_texture(size, rng(1))
    assert made.shape == (3, *size)
    # Pairs are made of such masks and textures, whatever the proportions.
    good = rng(9).random((3, *size), np.float32)
    pairs = [
        make_pair(good, texture=lambda g: procedural_texture(size, g), rng=rng(seed), rotation_share=0.5, clean_share=0)
        for seed in range(12)
    ]
    assert {item.image.shape for item in pairs} == {(3, *size)}
    assert {item.mask.shape for item in pairs} == {size}
    assert sum(bool(item.mask.any()) for item in pairs) >= 4


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda item: item.__name__)
def test_augmentations_change_the_image_and_keep_its_shape(augmentation):
    image = 0.2 + 0.5 * rng().random((3, SIZE, 2 * SIZE), np.float32)
    changed = augmentation(image, rng(1))
    assert changed.shape == image.shape
    assert np.isfinite(changed).all()
    assert np.abs(changed - image).max() > 1e-3


def test_equal_seeds_give_equal_bits():
    for make in (
        texture,
        lambda generator: augment(texture(generator), generator),
        lambda g: anomaly_mask((SIZE, SIZE), g),
    ):
        np.testing.assert_array_equal(make(rng(3)), make(rng(3)))
    first, second, other = pair(3, rotation_share=1.0), pair(3, rotation_share=1.0), pair(4, rotation_share=1.0)
    np.testing.assert_array_equal(first.image, second.image)
    assert np.abs(first.image - other.image).max() > 0.01


def test_textures_are_images_and_differ():
    made = np.stack([texture(rng(seed)) for seed in range(12)])
    assert made.min() >= 0.0
    assert made.max() <= 1.0
    assert len({item.tobytes() for item in made}) == 12
    assert min(item.std() for item in made) > 0.01


def test_an_anomaly_lies_inside_its_mask_alone():
    covered = 0
    for seed in range(30):
        made = pair(seed)
        assert set(np.unique(made.mask)) <= {0.0, 1.0}
        outside = np.broadcast_to(made.mask == 0.0, made.image.shape)
        np.testing.assert_array_equal(made.image[outside], made.original[outside])
        if made.mask.any():
            covered += 1
            inside = np.broadcast_to(made.mask > 0.0, made.image.shape)
            assert np.abs(made.image - made.original)[inside].mean() > 1e-3
    assert covered >= 15


def test_shares_are_kept():
    clean = pair(0, clean_share=1.0)
    np.testing.assert_array_equal(clean.image, clean.original)
    assert not clean.mask.any()
    ones = np.ones((3, SIZE, SIZE), np.float32)
    assert pair(1, rotation_share=1.0, original=ones).original.min() < 0.5
    assert pair(1, rotation_share=0.0, original=ones).original.min() == 1.0
