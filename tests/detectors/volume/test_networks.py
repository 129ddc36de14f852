"""Networks of the 3D baselines: sizes worked out elsewhere, shapes, ranges, and what is refused."""

import pytest

torch = pytest.importorskip("torch")

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.volume.networks import (  # noqa: E402
    Generator,
    Shape,
    critic,
    encoder,
    image_decoder,
    image_encoder,
)


def millions(network):
    return sum(item.numel() for item in network.parameters()) / 1e6


def shape(dims, side, width, *, channels=1, residual=False):
    return Shape(dims=dims, channels=channels, side=side, width=width, residual=residual)


@pytest.mark.parametrize(
    ("latent", "of_voxels", "of_images"), [(128, 4.85, 6.98), (256, 6.95, 11.18), (512, 11.14, 19.57)]
)
def test_plain_networks_have_the_sizes_that_were_worked_out(latent, of_voxels, of_images):
    assert millions(encoder(shape(3, 64, 32), latent)) == pytest.approx(of_voxels, abs=6e-3)
    assert millions(encoder(shape(2, 256, 32), latent)) == pytest.approx(of_images, abs=6e-3)


@pytest.mark.parametrize(("dims", "width", "expected"), [(2, 64, 8.53), (3, 64, 25.8), (3, 16, 2.40), (3, 8, 0.86)])
def test_residual_networks_have_the_sizes_of_the_public_code_and_its_third_dimension(dims, width, expected):
    assert millions(encoder(shape(dims, 64, width, residual=True), 128)) == pytest.approx(expected, rel=3e-3)
    assert millions(Generator(shape(dims, 64, width, residual=True), 128)) == pytest.approx(expected, rel=9e-3)


@pytest.mark.parametrize(("latent", "expected"), [(100, 0.54), (128, 0.60), (512, 1.385)])
def test_the_autoencoder_of_images_has_the_sizes_that_were_worked_out(latent, expected):
    assert millions(image_encoder(1, latent, (256, 256))) == pytest.approx(expected, abs=5e-3)
    assert millions(image_decoder(1, latent, (256, 256))) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("dims", "side"), [(2, 32), (3, 16)])
def test_what_is_encoded_is_generated_in_the_same_shape(dims, side, residual):
    given = shape(dims, side, 4, channels=3, residual=residual)
    images = torch.rand(2, 3, *[side] * dims)
    vectors = encoder(given, 5)(images)
    assert vectors.shape == (2, 5)
    made = Generator(given, 5)(vectors)
    assert made.shape == images.shape
    assert made.abs().max() <= 1.0
    assert critic(given)(images).shape == (2, 1)


@pytest.mark.parametrize("residual", [False, True])
def test_a_critic_judges_an_image_whatever_stands_beside_it(residual):
    network = critic(shape(3, 16, 4, residual=residual)).train()
    images = torch.rand(4, 1, 16, 16, 16)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(256, 256), (64, 192)])
def test_autoencoder_of_images_restores_the_shape(size):
    images = torch.rand(1, 4, *size)
    code = image_encoder(4, 9, size)(images)
    assert code.shape == (1, 9, 1, 1)
    assert image_decoder(4, 9, size)(code).shape == images.shape


@pytest.mark.parametrize(
    ("side", "width", "words"), [(48, 8, "power of two above 4"), (4, 8, "power of two"), (32, 0, "width is 0")]
)
def test_shapes_that_cannot_be_halved_are_refused(side, width, words):
    with pytest.raises(UsageError, match=words):
        shape(3, side, width)


@pytest.mark.parametrize("side", [64, 256])
def test_an_untrained_autoencoder_of_images_lets_through_what_it_sees(side):
    torch.manual_seed(0)
    images = torch.randn(6, 4, side, side)
    with torch.inference_mode():
        codes = image_encoder(4, 16, (side, side))(images)
        restored = image_decoder(4, 16, (side, side))(codes)
    assert 0.01 < codes.std(0).mean() < 2.0
    assert 0.01 < restored.std(0).mean() < 2.0


def test_an_unbounded_generator_begins_where_it_is_told():
    generator = Generator(shape(3, 16, 4), 6, start=2.5, is_bounded=False)
    assert (generator(torch.randn(3, 6)) == 2.5).all()
    assert abs(Generator(shape(3, 16, 4), 6)(10 * torch.randn(3, 6))).max() <= 1.0
