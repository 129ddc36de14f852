import numpy as np
import pytest

from lineproof.core.geometry import centre_crop_offset
from lineproof.core.linear import antialias_matrix, bilinear_matrix, gaussian_matrix, smooth_upsample_matrix


@pytest.mark.parametrize(("size_in", "size_out"), [(512, 256), (900, 256), (300, 256), (64, 224), (7, 7), (5, 1)])
def test_antialias_is_torchvisions(size_in, size_out):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = torch.rand(1, 1, size_in, size_in + 3, dtype=torch.float64)
    expected = functional.resize(image, [size_out, size_out + 1], antialias=True)[0, 0].numpy()
    rows, columns = antialias_matrix(size_in, size_out), antialias_matrix(size_in + 3, size_out + 1)
    np.testing.assert_allclose(rows @ image[0, 0].numpy() @ columns.T, expected, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size_in", "size_out"), [(28, 224), (64, 256), (1, 9), (9, 1), (56, 56), (30, 20)])
def test_bilinear_is_torchs(size_in, size_out, align_corners):
    torch = pytest.importorskip("torch")
    image = torch.rand(1, 1, size_in, size_in, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(
        image, (size_out, size_out), mode="bilinear", align_corners=align_corners
    )[0, 0].numpy()
    matrix = bilinear_matrix(size_in, size_out, align_corners=align_corners)
    np.testing.assert_allclose(matrix @ image[0, 0].numpy() @ matrix.T, expected, atol=1e-12)


@pytest.mark.parametrize("size", [5, 16, 17, 224])
def test_gaussian_is_scipys(size):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).standard_normal((size, size))
    matrix = gaussian_matrix(size, 4.0)
    np.testing.assert_allclose(matrix @ image @ matrix.T, ndimage.gaussian_filter(image, 4.0), atol=1e-13)


def test_smooth_upsample_without_sigma_is_the_upsampling():
    np.testing.assert_array_equal(
        smooth_upsample_matrix(14, 56, 0.0, align_corners=True), bilinear_matrix(14, 56, align_corners=True)
    )


def test_centre_crop_is_torchvisions():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    for size, crop in [(256, 224), (255, 224), (10, 7), (11, 4), (5, 5)]:
        cropped = functional.center_crop(torch.arange(size)[None, None, :].expand(1, size, size), [crop, crop])
        assert cropped[0, 0, 0].item() == centre_crop_offset(size, crop)
