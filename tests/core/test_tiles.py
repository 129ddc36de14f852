"""Where tiles lie, and what becomes of maps at their seams."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineproof.core.errors import UsageError
from lineproof.core.geometry import enlarge_map, seen_part
from lineproof.core.inputs import parse_preprocessing
from lineproof.core.spec import FrameRule, Preprocessing
from lineproof.core.tiles import MAX_TILES, TileAxis, Tiles


def tiles(height, width, overlap):
    return Tiles(height_px=height, width_px=width, overlap_px=overlap)


def spec(**changes):
    plain = {
        "frame_height_px": 40, "frame_width_px": 70, "frame_channels": 3, "resize_height_px": 16,
        "resize_width_px": 32, "crop_height_px": 16, "crop_width_px": 32, "tiles": tiles(16, 32, 8),
    }  # fmt: skip
    return Preprocessing(**{**plain, **changes})


@st.composite
def axes(draw):
    tile = draw(st.integers(1, 60))
    return TileAxis(tile + draw(st.integers(0, 150)), tile, draw(st.integers(0, tile - 1)))


@settings(deadline=None)
@given(axes())
def test_tiles_cover_the_frame_from_border_to_border(axis):
    starts, stride = axis.starts_px, axis.tile_px - axis.overlap_px
    assert (starts[0], starts[-1] + axis.tile_px) == (0, axis.frame_px)
    assert len(starts) == axis.num == len(set(starts))
    # All but the last step are the stride; the last one is at most that, and above 0.
    steps = np.diff(starts)
    assert (steps[:-1] == stride).all()
    assert all(0 < step <= stride for step in steps[-1:])


def test_the_last_tile_is_moved_back():
    assert TileAxis(1000, 512, 64).starts_px == (0, 448, 488)
    assert TileAxis(960, 512, 64).starts_px == (0, 448)
    assert TileAxis(512, 512, 64).starts_px == (0,)
    assert TileAxis(513, 512, 0).starts_px == (0, 1)


def slow_value(axis, tile_maps, position):
    """Map value at a position, in exact fractions, by the rule as FORMAT.md states it."""
    num = len(tile_maps[0])
    half, total, value = Fraction(axis.tile_px, 2 * num), 0, 0
    for start, tile_map in zip(axis.starts_px, tile_maps, strict=True):
        end = start + axis.tile_px
        if not start <= position <= end:
            continue
        ends = [position - start - half] if start else []
        ends += [end - position - half] if end != axis.frame_px else []
        weight = max(min(ends, default=Fraction(axis.frame_px)), Fraction(1, 10**9))
        at = min(max((position - start) * num / axis.tile_px - Fraction(1, 2), 0), num - 1)
        low = int(at)
        high = min(low + 1, num - 1)
        total += weight
        value += weight * (tile_map[low] * (1 - at + low) + tile_map[high] * (at - low))
    return value / total


@pytest.mark.parametrize(
    ("axis", "num_tile"),
    [
        (TileAxis(100, 40, 10), 20), (TileAxis(100, 40, 0), 20), (TileAxis(97, 40, 13), 17), (TileAxis(90, 40, 35), 8),
        (TileAxis(41, 40, 39), 40), (TileAxis(50, 20, 5), 40),
    ],
)  # fmt: skip
def test_a_map_is_stitched_by_the_rule(axis, num_tile):
    rng = np.random.default_rng(0)
    values = rng.integers(-20, 20, (axis.num, num_tile))
    num_map = round(axis.frame_px * num_tile / axis.tile_px)
    stitched = axis.stitching(num_tile, num_map) @ values.ravel()
    exact = [
        float(slow_value(axis, values.tolist(), (Fraction(pixel) + Fraction(1, 2)) * axis.frame_px / num_map))
        for pixel in range(num_map)
    ]
    np.testing.assert_allclose(stitched, exact, atol=1e-7)


@settings(deadline=None)
@given(axes(), st.integers(1, 40))
def test_a_constant_map_stays_constant(axis, num_tile):
    matrix = axis.stitching(num_tile, max(1, round(axis.frame_px * num_tile / axis.tile_px)))
    assert matrix.min() >= 0.0
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-14)


@settings(deadline=None)
@given(axes(), st.integers(2, 40))
def test_a_ramp_stays_a_ramp_where_tiles_overlap_by_a_map_pixel(axis, num_tile):
    if axis.num > 1 and axis.overlap_px * num_tile < axis.tile_px:
        return
    num_map = max(1, round(axis.frame_px * num_tile / axis.tile_px))
    centres = (np.arange(num_tile) + 0.5) * axis.tile_px / num_tile
    ramps = np.concatenate([start + centres for start in axis.starts_px])
    expected = (np.arange(num_map) + 0.5) * axis.frame_px / num_map
    # Beyond the outermost centres of the frame a map is held constant.
    expected = expected.clip(ramps.min(), ramps.max())
    np.testing.assert_allclose(axis.stitching(num_tile, num_map) @ ramps, expected, atol=1e-6)


def test_two_tiles_are_cross_faded_linearly():
    axis = TileAxis(48, 32, 16)
    step = axis.stitching(32, 48) @ np.repeat([0.0, 1.0], 32)
    assert step[:17].tolist() == [0.0] * 16 + [pytest.approx(0.0, abs=1e-9)]
    np.testing.assert_allclose(step[16:32], np.arange(16) / 15, atol=1e-9)
    assert step[31:].tolist() == [pytest.approx(1.0, abs=1e-9)] + [1.0] * 16


def test_the_map_of_tiles_covers_the_frame_at_their_scale():
    whole = spec(resize_height_px=8, crop_height_px=8)
    rows, columns = whole.axes
    assert (rows.frame_px, rows.crop_px, columns.frame_px, columns.crop_px) == (40, 20, 70, 70)
    assert seen_part(whole) == (slice(0, 40), slice(0, 70))
    anomaly_map = np.zeros((20, 70), np.float32)
    anomaly_map[5, 30] = 1.0
    enlarged = enlarge_map(anomaly_map, whole)
    assert enlarged.shape == (40, 70)
    # A pixel of the map lies where its tile's did: rows 10 and 11 of the frame.
    assert np.flatnonzero(enlarged.max(axis=1) > 0.5).tolist() == [10, 11]
    assert np.flatnonzero(enlarged.max(axis=0) > 0.5).tolist() == [30]


def test_each_tile_is_prepared_like_a_frame_of_its_size():
    each = spec().each
    assert (each.frame_shape, each.tiles) == ((16, 32, 3), None)
    assert each == spec(frame_height_px=16, frame_width_px=32, tiles=None)
    assert each.each == each


@pytest.mark.parametrize("size", [(0, 8, 0), (8, -1, 0), (8, 8, 8), (8, 16, 9), (8, 8, -1)])
def test_tiles_that_cannot_be_are_refused(size):
    with pytest.raises(UsageError, match=r"^(tiles \(--tiles\)|overlap \(--overlap\)) (are|is) .*expected"):
        tiles(*size)


def test_a_frame_smaller_than_a_tile_is_refused():
    with pytest.raises(UsageError, match=r"^tiles \(--tiles\) are 16x32, frames 15x70 .* Give smaller tiles"):
        spec(frame_height_px=15)


def test_too_many_tiles_are_refused():
    assert tiles(8, 8, 0).num((128, 128)) == MAX_TILES
    with pytest.raises(UsageError, match=r"with overlap \(--overlap\) 0 are 272 in a frame of 128x129; .* at most 256"):
        tiles(8, 8, 0).num((128, 129))


def test_a_centre_crop_of_tiles_is_refused():
    with pytest.raises(UsageError, match=r"crop from 16x32 to 12x32 leave stripes .* --image-size 12x32 alone\.$"):
        spec(crop_height_px=12)


def test_a_specification_says_its_tiles():
    (_, line) = spec().summary_lines()
    assert line.startswith(
        "In the graph: 4 x 3 tiles of 16x32 px with 8 px of overlap, the score is the largest of theirs"
    )
    assert "tiles" not in " ".join(spec(tiles=None).summary_lines())


def test_tiles_of_a_size_that_training_saw_are_named():
    (note,) = spec(fit="crop").differences(FrameRule.of((16, 32), fit="crop"))
    assert note.startswith("Frames are 40x70 (height x width), looked at in tiles of 16x32. Training saw the centre")
    assert spec().differences(FrameRule.of((40, 70))) == ()


def test_tiles_are_read_strictly():
    raw = json.loads(json.dumps(dataclasses.asdict(spec())))
    assert parse_preprocessing(raw) == spec()
    assert parse_preprocessing({key: raw[key] for key in raw if key != "tiles"}) == spec(tiles=None)
    for wrong in (
        {"height_px": 16, "width_px": 32},
        {**raw["tiles"], "blend": "mean"},
        {**raw["tiles"], "overlap_px": 1.5},
    ):
        with pytest.raises(ValueError, match=r"preprocessing\.tiles"):
            parse_preprocessing({**raw, "tiles": wrong})
