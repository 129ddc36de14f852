"""Graph parts of scans: what is resized, and what is left as it is."""

import pytest

torch = pytest.importorskip("torch")

from lineproof.core.inputs import DepthPreprocessing  # noqa: E402
from lineproof.detectors.nn.scans import DepthPart  # noqa: E402

SIZE = (6, 10)
NEAR_M, FAR_M = 0.3, 0.5


def spec(resized=SIZE):
    sizes = {"frame_height_px": SIZE[0], "frame_width_px": SIZE[1]}
    sizes |= {"resize_height_px": resized[0], "resize_width_px": resized[1]}
    return DepthPreprocessing(**sizes, quantity="z", near_m=NEAR_M, far_m=FAR_M, has_rgb=True)


def frames():
    generator = torch.Generator().manual_seed(1)
    depth = 0.3 + 0.2 * torch.rand((2, *SIZE, 1), generator=generator)
    depth[0, 2, 3] = 0.0
    return torch.cat([depth, torch.randint(0, 256, (2, *SIZE, 3), generator=generator).float()], -1)


def test_frames_of_the_right_size_are_only_scaled():
    given = frames()
    part = DepthPart(spec())
    images, measured = part(given)
    assert dict(part.named_buffers()) == {}
    middle_m, half_m = (FAR_M + NEAR_M) / 2, (FAR_M - NEAR_M) / 2
    torch.testing.assert_close(images[:, 0], (given[..., 0] - middle_m) / half_m, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(images[:, 1:], given[..., 1:].permute(0, 3, 1, 2) / 255.0, rtol=1e-6, atol=0.0)
    assert measured[0, 0, 2, 3] == 0.0
    assert measured.sum() == measured.numel() - 1


@pytest.mark.parametrize("resized", [(3, 5), (6, 20), (9, 10)])
def test_other_sizes_are_resized(resized):
    part = DepthPart(spec(resized))
    images, measured = part(frames())
    assert set(dict(part.named_buffers())) == {"rows", "columns", "row_weights", "column_weights"}
    assert images.shape == (2, 4, *resized)
    assert measured.shape == (2, 1, *resized)
