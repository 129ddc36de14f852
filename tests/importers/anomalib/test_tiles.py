"""An imported detector looks at frames in tiles: scores, threshold, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from lineproof.bundle.runs.folder import CHECKPOINT, read_record
from lineproof.core.errors import UsageError
from lineproof.core.tiles import Tiles
from lineproof.detectors.nn.graph import FrameGraph
from lineproof.detectors.training.checkpoint import load_detector
from lineproof.eval.parity.verify import verify
from lineproof.export.bundle import check_run, export_bundle
from lineproof.export.options import ExportOptions
from lineproof.importers.anomalib.run import ImportOptions, import_anomalib

TILES = Tiles(height_px=64, width_px=64, overlap_px=16)
STARTS = (0, 32)


@pytest.mark.parametrize("scale", ["native", "anomalib"])
def test_a_checkpoint_looks_at_tiles(contents, write, part, tmp_path, scale):
    options = ImportOptions(tiles=TILES, score_scale=scale)
    result = import_anomalib(
        write(contents(low=-500.0, high=500.0)), dataset=part, out=tmp_path / "run", options=options
    )
    assert "Each is 4 tiles of 64x64 px with 16 px of overlap" in " ".join(result.summary_lines())
    bundle = export_bundle(tmp_path / "run", tmp_path / "a.bundle", options=ExportOptions(max_batch=2))
    record, golden, spec = read_record(tmp_path / "run"), bundle.golden(), bundle.manifest.preprocessing
    detector = load_detector(record.detector, tmp_path / "run" / CHECKPOINT)
    cut = np.stack([frame[y : y + 64, x : x + 64] for frame in golden.frames for y in STARTS for x in STARTS])
    with torch.inference_mode():
        score, _ = FrameGraph(spec.each, detector, imported=record.imported)(torch.from_numpy(cut))
    np.testing.assert_allclose(golden.reference.score, score.numpy().reshape(-1, 4).max(1), rtol=1e-5)
    # Not the one of the file, which was set on single images.
    assert bundle.manifest.threshold.num_good == len(record.holdout_scores)
    assert bundle.manifest.threshold.value > max(record.holdout_scores)
    report = verify(bundle, engine="ort-cpu")
    assert report.passed, report.failures


def test_images_that_it_may_have_learned_set_no_threshold(contents, write, part, tmp_path):
    training_only = dataclasses.replace(part, samples=tuple(part.train))
    with pytest.raises(UsageError, match="which the detector may have learned from"):
        import_anomalib(
            write(contents()), dataset=training_only, out=tmp_path / "a", options=ImportOptions(tiles=TILES)
        )
    assert not (tmp_path / "a").exists()


def test_a_run_imported_for_whole_frames_gets_no_tiles(contents, write, part, tmp_path):
    options = ImportOptions(fit="crop", frame=(64, 64))
    import_anomalib(write(contents()), dataset=part, out=tmp_path / "run", options=options)
    with pytest.raises(UsageError, match=r"imported for whole frames\. Import the checkpoint again with --tiles"):
        check_run(read_record(tmp_path / "run"), ExportOptions(tiles=TILES, frame=(96, 96, 3)))


def test_whole_frames_on_the_scale_of_the_checkpoint_are_exported(contents, write, part, tmp_path):
    options = ImportOptions(score_scale="anomalib")
    import_anomalib(write(contents(low=-500.0, high=500.0)), dataset=part, out=tmp_path / "run", options=options)
    bundle = export_bundle(tmp_path / "run", tmp_path / "a.bundle", options=ExportOptions(max_batch=2))
    assert verify(bundle, engine="ort-cpu").passed
