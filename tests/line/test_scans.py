"""Scans on the line: each judged once, and again where any file that is read of it has changed."""

import pytest

from lineproof.core.errors import BadInputError
from lineproof.line.images import to_judge
from lineproof.line.request import InspectionRequest, open_inspection
from lineproof.runtime.engine import availability


@pytest.fixture
def run(scan_bundle, tmp_path):
    """A function from paths to the names of what was judged; it goes on in one results folder."""
    state = availability("ort-cpu")
    if not state.is_available:
        pytest.skip(f"{state.inspection}. To fix: {state.fix}")
    bundles = {has_rgb: scan_bundle(has_rgb=has_rgb).path for has_rgb in (False, True)}

    def judged(*paths, has_rgb=True, said=None):
        out = tmp_path / f"out-{has_rgb}"
        request = InspectionRequest(
            bundle=bundles[has_rgb], paths=paths, engine="ort-cpu", out=out, append=True, skip_judged=True
        )
        verdicts, notes = [], [] if said is None else said
        with open_inspection(request, note=notes.append) as opened:
            opened.inspect(show=verdicts.append).check()
        return ["/".join(entry["file"].rsplit("/", 3)[1:]) for entry in verdicts]

    return judged


def test_a_folder_gives_each_scan_once_and_no_mask(run, tiny_scans):
    said = []
    assert run(tiny_scans / "test", said=said) == [
        "good/rgb/000.png", "good/rgb/001.png", "hole/rgb/000.png", "hole/rgb/001.png",
    ]  # fmt: skip
    assert "4 files belong to scans that others name: each scan is judged once." in said
    assert "4 masks in folders gt beside rgb or xyz are left out." in said
    assert run(tiny_scans / "test") == []


@pytest.mark.parametrize("has_rgb", [False, True])
def test_a_scan_is_judged_again_where_what_is_read_of_it_changed(run, tiny_scans, has_rgb):
    image, cloud = tiny_scans / "test/good/rgb/000.png", tiny_scans / "test/good/xyz/000.tiff"
    assert run(image, has_rgb=has_rgb) == ["good/rgb/000.png"]
    assert run(cloud, has_rgb=has_rgb) == [], "its image named it before"
    cloud.write_bytes(cloud.read_bytes())
    assert run(image, has_rgb=has_rgb) == ["good/rgb/000.png"]
    image.write_bytes(image.read_bytes())
    assert run(cloud, has_rgb=has_rgb) == (["good/xyz/000.tiff"] if has_rgb else [])


def test_to_images_no_mask_and_no_cloud_is_a_part(tiny_scans):
    hole, other = tiny_scans / "test/hole", ("parts/rgb/0.png", "parts/xyz/0.tiff", "parts/gt/0.png")
    files = tuple(str(hole / name) for name in ("gt/000.png", "rgb/000.png", "xyz/000.tiff"))
    assert to_judge((*files, *other), "image") == (
        (files[1], *other),
        (
            "1 mask in a folder gt beside rgb or xyz is left out.",
            "1 cloud in a folder xyz beside rgb is left out: the bundle reads images.",
        ),
    )


@pytest.mark.parametrize("reads", ["image", "cloud"])
def test_masks_alone_are_nothing_to_judge(tiny_scans, reads):
    mask = str(tiny_scans / "test/hole/gt/000.png")
    with pytest.raises(BadInputError, match=r"^Nothing is left to judge\. 1 mask .* left out\. Name .*(rgb|xyz)"):
        to_judge((mask,), reads)
