"""Where a page shows what the graph saw: overlay and gallery against the graph's own resize and crop."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lineproof.core.spec import Preprocessing
from lineproof.line.inspector import Verdict
from lineproof.report.overlays import draw
from lineproof.report.tiles import read_shown, seen_at

torch = pytest.importorskip("torch")

#: The crop of 225 of 256 begins at row 15.5, which is rounded to even: 16.
UNEVEN = Preprocessing.of((900, 900, 3), (256, 256), (225, 225), normalisation=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
TALL = Preprocessing.of((900, 500, 3), (301, 160), (224, 149), normalisation=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def lit_frame(spec, place):
    """A black frame with one white pixel."""
    frame = np.zeros(spec.frame_shape, np.uint8)
    frame[place] = 255
    return frame


def map_of(frame, spec):
    """What the graph makes of a frame, taken as an anomaly map that reaches 1."""
    from lineproof.detectors.nn.graph import graph_part

    with torch.no_grad():
        anomaly_map = graph_part(spec)(torch.from_numpy(frame)[None])[0].mean(0).numpy()
    return anomaly_map / anomaly_map.max()


def middle(weights):
    """Centre of mass in pixels from the outer edge."""
    return [(np.arange(n) + 0.5) @ weights.sum(1 - axis) / weights.sum() for axis, n in enumerate(weights.shape)]


@pytest.mark.parametrize("spec", [UNEVEN, TALL], ids=["uneven", "tall"])
@pytest.mark.parametrize("share", [(0.16, 0.15), (0.5, 0.5), (0.37, 0.83), (0.84, 0.88)])
def test_a_lit_pixel_is_where_overlay_and_gallery_show_it(spec, share, tmp_path):
    place = tuple(int(part * size) for part, size in zip(share, spec.frame_shape, strict=False))
    frame = lit_frame(spec, place)
    anomaly_map = map_of(frame, spec)
    bundle = SimpleNamespace(manifest=SimpleNamespace(preprocessing=spec))
    verdict = Verdict(score=1.0, verdict="NG", threshold=0.5, anomaly_map=anomaly_map, time_ns=1)
    drawn = draw(np.zeros_like(frame), verdict, bundle=bundle, limits=(0.0, 1.0)).astype(float).sum(axis=2)
    half_map_px = [axis.frame_px / axis.resized_px / 2 for axis in spec.axes]
    off_px = np.abs(np.array(middle(drawn)) - (np.array(place) + 0.5))
    assert (off_px <= half_map_px).all(), f"{off_px} pixels off at {place}"
    # The gallery draws at the map's size: its frame must lie under the map.
    path = tmp_path / "lit.png"
    Image.fromarray(frame).save(path)
    under = seen_at(read_shown(path, spec), spec, anomaly_map.shape).astype(float).sum(axis=2)
    np.testing.assert_allclose(middle(under), middle(anomaly_map), atol=0.5)


def test_another_rounding_of_the_crop_would_be_seen():
    """The test above can fail: one row further, the overlay is more than half a map's pixel off."""
    frame = lit_frame(UNEVEN, (450, 450))
    moved = np.roll(map_of(frame, UNEVEN), 1, axis=0)
    bundle = SimpleNamespace(manifest=SimpleNamespace(preprocessing=UNEVEN))
    verdict = Verdict(score=1.0, verdict="NG", threshold=0.5, anomaly_map=moved, time_ns=1)
    drawn = draw(np.zeros_like(frame), verdict, bundle=bundle, limits=(0.0, 1.0)).astype(float).sum(axis=2)
    assert abs(middle(drawn)[0] - 450.5) > 900 / 256 / 2
