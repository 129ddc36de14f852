"""Tiles of an original, read one by one, against the matrices of which the graph is made."""

import numpy as np
import pytest

from lineproof.core.prediction import Prediction
from lineproof.core.tiles import Tiles
from lineproof.runtime.original_tiles import cut, stitch

#: frame height and width; tile height and width, overlap; height and width of a tile's map
CASES = {
    "shared borders": ((40, 56), (16, 24, 8), (16, 24)),
    "no overlap": ((32, 48), (16, 24, 0), (4, 6)),
    "moved back": ((97, 131), (32, 48, 4), (7, 9)),
    "more than half": ((41, 50), (20, 20, 17), (20, 13)),
    "enlarged": ((30, 30), (12, 12, 3), (24, 24)),
    "one tile": ((24, 40), (24, 40, 0), (12, 20)),
    "one row": ((24, 90), (24, 24, 6), (1, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_matrices(case):
    frame, tile, size = CASES[case]
    tiles = Tiles(height_px=tile[0], width_px=tile[1], overlap_px=tile[2])
    rows, columns = tiles.axes(frame)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, *frame, 3), dtype=np.uint8)
    images = cut(frames, tiles)
    assert images.shape == (2 * tiles.num(frame), *tiles.size, 3)
    corners = [(number, top, left) for number in (0, 1) for top in rows.starts_px for left in columns.starts_px]
    for image, (number, top, left) in zip(images, corners, strict=True):
        np.testing.assert_array_equal(image, frames[number, top : top + tile[0], left : left + tile[1]])
    score = rng.random(tiles.num(frame)).astype(np.float32)
    maps = rng.random((len(score), *size)).astype(np.float32)
    whole = stitch(Prediction(score, maps), tiles, frame)
    grid = maps.reshape(rows.num, columns.num, *size).transpose(0, 2, 1, 3).reshape(rows.num * size[0], -1)
    height, width = tiles.map_size(frame, size)
    blend = rows.stitching(size[0], height) @ grid.astype(np.float64) @ columns.stitching(size[1], width).T
    np.testing.assert_allclose(whole.anomaly_map, blend[None], rtol=1e-6)
    assert whole.score.tolist() == [score.max()]


def test_without_tiles_nothing_is_done():
    frames, seen = np.zeros((2, 4, 6, 1), np.uint8), Prediction(np.ones(1, np.float32), np.ones((1, 4, 6), np.float32))
    assert cut(frames, None) is frames
    assert stitch(seen, None, (4, 6)) is seen
