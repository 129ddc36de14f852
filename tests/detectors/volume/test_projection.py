"""Rays through a grid, and maps that follow from it, against marches and loops."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.core.camera import DivisionCamera  # noqa: E402
from lineproof.core.inputs import VoxelPreprocessing  # noqa: E402
from lineproof.detectors.volume.projection import CellsToPixels, coarse_size, ray_table  # noqa: E402

SIZE = (23, 30)
CAMERA = DivisionCamera(
    focus_m=0.01,
    kappa_per_m2=-3000.0,
    pixel_width_m=1e-4,
    pixel_height_m=1.1e-4,
    centre_column_px=13.2,
    centre_row_px=11.9,
    width_px=SIZE[1],
    height_px=SIZE[0],
)


def spec_of(num_cells=6):
    low, high = (-0.06, -0.05, 0.42), (0.05, 0.04, 0.5)
    return VoxelPreprocessing(
        frame_height_px=SIZE[0], frame_width_px=SIZE[1], box_low_m=low, box_high_m=high, num_cells=num_cells
    )


def marched(spec, ray):
    """Cells along a ray, by steps of a five-hundredth of a cell."""
    side = spec.num_cells
    depths = np.arange(0.3, 0.7, spec.edge_m / side / 500)
    places = np.floor((ray * depths[:, None] - spec.origin_m) * side / spec.edge_m).astype(int)
    places = places[((places >= 0) & (places < side)).all(1)]
    return {(z * side + y) * side + x for x, y, z in places.tolist()}


def of_cell(spec, number):
    """Row and column at which a cell's centre appears."""
    side = spec.num_cells
    z, y, x = number // side**2, number // side % side, number % side
    centre = spec.origin_m + (np.array([x, y, z]) + 0.5) * spec.edge_m / side
    return tuple(float(item) for item in CAMERA.project(centre))


@pytest.mark.parametrize("stride", [1, 4, 7])
def test_a_ray_sees_what_it_crosses_and_what_lies_nearest(stride):
    spec = spec_of()
    height, width = coarse_size(SIZE, stride)
    table = ray_table(spec, CAMERA, stride_px=stride).reshape(height, width, -1)
    nearest = {}
    for number in range(spec.num_cells**3):
        row, column = of_cell(spec, number)
        place = int(np.floor((row + 0.5) * height / SIZE[0])), int(np.floor((column + 0.5) * width / SIZE[1]))
        nearest.setdefault(place, set()).add(number)
    for row in range(height):
        for column in range(0, width, 3):
            at = (row + 0.5) * SIZE[0] / height - 0.5, (column + 0.5) * SIZE[1] / width - 0.5
            seen = [int(cell) for cell in table[row, column] if cell != spec.num_cells**3]
            assert len(set(seen)) == len(seen)
            expected = marched(spec, CAMERA.unproject(*map(np.array, at))) | nearest.get((row, column), set())
            # A march may step over a corner that a ray cuts by less than its step.
            assert expected <= set(seen)
            assert len(set(seen) - expected) <= 1


def test_every_cell_that_is_in_the_image_is_seen():
    spec = spec_of(num_cells=9)
    in_image = {
        number
        for number in range(9**3)
        if -0.5 <= of_cell(spec, number)[0] < SIZE[0] - 0.5 and -0.5 <= of_cell(spec, number)[1] < SIZE[1] - 0.5
    }
    for stride in (1, 5, 30):
        assert in_image <= set(ray_table(spec, CAMERA, stride_px=stride).ravel().tolist())


def test_rays_beside_the_grid_see_nothing():
    beside = spec_of()
    far = VoxelPreprocessing(
        frame_height_px=SIZE[0], frame_width_px=SIZE[1], box_low_m=(5, 5, 0.4), box_high_m=(5.1, 5.1, 0.5), num_cells=6
    )
    assert (ray_table(far, CAMERA, stride_px=2) == beside.num_cells**3).all()


def test_pixels_see_their_own_cell_and_along_their_ray():
    spec, stride = spec_of(), 3
    height, width = coarse_size(SIZE, stride)
    table = ray_table(spec, CAMERA, stride_px=stride)
    rng = np.random.default_rng(3)
    scores = rng.random((2, 6, 6, 6)).astype(np.float32)
    cells = rng.integers(0, 6**3 + 1, (2, SIZE[0] * SIZE[1]))
    score, anomaly_map = CellsToPixels(torch.from_numpy(table), (height, width), SIZE)(
        torch.from_numpy(scores), torch.from_numpy(cells)
    )
    padded = np.concatenate([scores.reshape(2, -1), np.zeros((2, 1))], axis=1)
    coarse = torch.from_numpy(padded[:, table].max(axis=2).reshape(2, 1, height, width))
    along = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear", align_corners=False)[:, 0].numpy()
    own = np.stack([padded[n, cells[n]].reshape(SIZE) for n in range(2)])
    np.testing.assert_allclose(anomaly_map.numpy(), np.maximum(along, own), atol=1e-6)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.numpy().max(axis=(1, 2)))
